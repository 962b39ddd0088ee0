"""From a file and overrides to one recipe, or one error with everything wrong."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from recipe_stand_in import BASE

from ftk.core.errors import RecipeError
from ftk.recipe.load import load_recipe
from ftk.recipe.schema import Recipe
from ftk.train.optimizers import Sgd
from ftk.train.schedules import Linear, Wsd
from ftk.tuning.full import Full
from ftk.tuning.lora import Lora


def test_plain_words_and_defaults(load):
    recipe = load(BASE + "tuning: full\nquantization: null\ntraining: {schedule: wsd, optimizer: sgd}\n").recipe
    assert recipe.model.id == "ftk://tiny"
    assert [source.source for source in recipe.data.train] == ["rows.jsonl"]
    assert recipe.tuning == Full()
    assert recipe.training.schedule == Wsd()
    assert recipe.training.optimizer == Sgd()
    assert load(BASE).recipe.tuning == Lora()


def test_python_takes_plain_words_too():
    recipe = Recipe.model_validate(
        {"model": "m", "data": {"train": "t"}, "tuning": "lora", "evaluation": {"metrics": ["f1", "my:metric"]}}
    )
    assert recipe.tuning == Lora()
    assert [metric.name for metric in recipe.evaluation.metrics] == ["f1", "my:metric"]


def test_a_union_takes_its_default_name(load):
    assert load(BASE + "tuning: {rank: 8}\n").recipe.tuning == Lora(rank=8)


def test_recipe_is_frozen(load):
    with pytest.raises(ValueError, match="frozen"):
        load(BASE).recipe.training.epochs = 1


def test_misspelt_key_has_line_and_nearest_name(refusal):
    text = "model: ftk://tiny\ndata: {train: a.jsonl}\ntraining:\n  epochs: 1\n  learning_rte: 1e-4\n"
    assert refusal(text) == [
        "recipe.yaml:5: training.learning_rte is not a field of training. Did you mean learning_rate?"
    ]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("learning_rate: 1e-4\n", "learning_rate is not a section of a recipe. learning_rate belongs under training."),
        ("training: {seed: 3}\n", "training.seed is not a field of training. seed belongs at the top of the recipe, "
         "in no section."),
        ("model: {id: x, rank: 3}\n", "model.rank is not a field of model. rank belongs under tuning."),
        ("tuning: {name: full, rank: 3}\n", "tuning.rank is not a field of tuning: full. It belongs to tuning: lora."),
        ("tuning: {lora_alpha: 3}\n", "tuning.lora_alpha is not a field of tuning. In ftk it is tuning.alpha."),
        ("training: {gradient_checkpointing: true}\n", "training.gradient_checkpointing is not a field of training. "
         "In ftk it is training.activation_checkpointing."),
        ("load_in_4bit: true\n", "load_in_4bit is not a section of a recipe. In ftk it is quantization."),
        ("traning: {epochs: 1}\n", "traning is not a section of a recipe. Did you mean training?"),
    ],
)  # fmt: skip
def test_misplaced_and_foreign_keys_are_answered(refusal, text, line):
    key = text.split(":")[0]
    base = "\n".join(one for one in BASE.splitlines() if not one.startswith(f"{key}:")) + "\n"
    lines = refusal(base + text)
    [found] = [one.split(": ", 1)[1] for one in lines]
    assert found == line


def test_gradient_accumulation_is_told_to_be_needless(refusal):
    [line] = refusal(BASE + "training: {gradient_accumulation_steps: 4}\n")
    assert "It is not needed: training.batch_size is the whole optimizer step" in line


def test_all_violations_come_at_once_in_order_of_lines(refusal):
    text = """\
model: {id: ftk://tiny, revison: x}
data:
  train: [{source: a, wieght: 2}]
  train: b
training:
  epochs: many
  batch_size: 0
  precision: bf61
  micro_batch_size: some
  schedule: {name: cosin}
  max_grad_norm: "${UNSET}"
evaluation: {every: often}
parallel: [1]
quantization: {double: false}
"""
    lines = refusal(text, "training.lr=1", "seed=abc")
    assert [line.split(": ")[0] for line in lines] == [
        *(f"recipe.yaml:{n}" for n in (1, 3, 4, 6, 7, 8, 9, 10, 11, 12, 13, 14)),
        "training.lr=1",
        "seed=abc",
    ]
    text = "\n".join(lines)
    for part in (
        "model.revison is not a field of model. Did you mean revision?",
        "data.train.0.wieght is not a field of data.train.0. Did you mean weight?",
        "train is given twice, first on line 3",
        "training.epochs is 'many', expected a number",
        "training.batch_size is 0, expected more than 0",
        "training.precision is 'bf61', expected one of auto, fp32, bf16 or fp16. Did you mean bf16?",
        "training.micro_batch_size is 'some', expected a whole number or auto",
        "training.schedule.name is 'cosin', expected one of cosine, linear, constant, wsd. Did you mean cosine?",
        "the environment variable UNSET is not set",
        "evaluation.every is 'often', expected a number of optimizer steps such as 200",
        "parallel is a list, expected a mapping with processes, strategy",
        "quantization.name is missing, expected one of nf4, int8",
        "training.lr is not a field of training. In ftk it is training.learning_rate.",
        "seed is 'abc', expected a whole number",
    ):
        assert part in text


def test_one_error_has_its_first_place(load):
    with pytest.raises(RecipeError) as caught:
        load(BASE + "sede: 1\ntraning: 1\n")
    assert caught.value.place == "recipe.yaml:3"
    assert caught.value.message.startswith("sede is not")
    assert "\nrecipe.yaml:4: traning" in caught.value.message


def test_missing_field_says_what_it_is(refusal):
    assert refusal("data: {train: x}\n") == ["recipe.yaml:1: model is missing. The model that is tuned."]
    [line] = refusal("model: {revision: x}\ndata: {train: x}\n")
    assert line.startswith("recipe.yaml:1: model.id is missing. A hub id")


def test_a_boolean_is_no_number_and_no_is_no_boolean(load, refusal):
    assert refusal(BASE + "training: {epochs: true}\n") == ["recipe.yaml:3: training.epochs is true, expected a number"]
    assert load(BASE + "output: {folder: no}\n").recipe.output.folder == "no"
    assert load(BASE + "output: {folder: on}\n").recipe.output.folder == "on"


def test_a_number_where_text_is_asked_for_is_the_text_as_written(load):
    recipe = load(BASE + "output: {folder: 2024}\n", "model.revision=12e4567", "data.train.0.subset=007").recipe
    assert recipe.output.folder == "2024"
    assert recipe.model.revision == "12e4567"
    assert recipe.data.train[0].subset == "007"


def test_learning_rate_without_a_point(load):
    """known_bugs: YAML number."""
    assert load(BASE + "training: {learning_rate: 1e-4}\n").recipe.training.learning_rate == 1e-4
    assert load(BASE, "training.learning_rate=3e-5").recipe.training.learning_rate == 3e-5


def test_overrides_merge_and_another_name_replaces(load):
    text = BASE + "tuning: {name: lora, rank: 8, alpha: 4}\ntraining: {schedule: {name: cosine, warmup_ratio: 0.5}}\n"
    assert load(text, "tuning.rank=4").recipe.tuning == Lora(rank=4, alpha=4)
    assert load(text, "tuning=full").recipe.tuning == Full()
    assert load(text, "tuning.name=full").recipe.tuning == Full()
    assert load(text, "tuning=lora").recipe.tuning == Lora(rank=8, alpha=4)
    assert load(text, "training.schedule=linear").recipe.training.schedule == Linear()
    assert load(text, "training.schedule={name: cosine, min_ratio: 0.1}").recipe.training.schedule.warmup_ratio == 0.5
    assert load(text, "training.epochs=1", "training.epochs=2").recipe.training.epochs == 2


def test_overrides_of_lists(load, refusal):
    text = "model: m\ndata:\n  train:\n    - {source: a, weight: 1}\n    - {source: b, weight: 1}\n"
    assert [s.weight for s in load(text, "data.train.1.weight=2").recipe.data.train] == [1, 2]
    assert [s.source for s in load(text, "data.train=c").recipe.data.train] == ["c"]
    assert [s.source for s in load(text, "data.train.2={source: c, weight: 1}").recipe.data.train] == ["a", "b", "c"]
    assert load(BASE, "data.train.0.split=train[:5%]").recipe.data.train[0].split == "train[:5%]"
    assert "has 2 items" in refusal(text, "data.train.5.weight=2")[0]
    assert "say which of its items, such as data.train.0.weight" in refusal(text, "data.train.weight=2")[0]


@pytest.mark.parametrize("override", ["training.epochs", "=3", "training..epochs=1"])
def test_malformed_override(refusal, override):
    assert refusal(BASE, override) == [f"{override}: is no override. Expected path=value, such as training.epochs=1"]


def test_extends_is_relative_and_merges(tmp_path, load):
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "root.yaml").write_text(BASE + "tuning: {name: lora, rank: 8}\ntraining: {epochs: 7}\n")
    (tmp_path / "base" / "middle.yaml").write_text("extends: root.yaml\ntraining: {batch_size: 4}\n")
    recipe = load("extends: base/middle.yaml\ntuning: {alpha: 8}\ntraining: {epochs: 1}\n").recipe
    assert recipe.tuning == Lora(rank=8, alpha=8)
    assert (recipe.training.epochs, recipe.training.batch_size) == (1, 4)
    assert load("extends: base/middle.yaml\ntuning: full\n").recipe.tuning == Full()


def test_errors_of_extended_files_name_that_file(tmp_path, refusal):
    (tmp_path / "root.yaml").write_text(BASE + "sede: 1\n")
    assert refusal("extends: root.yaml\nsedd: 1\n") == [
        "root.yaml:3: sede is not a section of a recipe. Did you mean seed?",
        "recipe.yaml:2: sedd is not a section of a recipe. Did you mean seed?",
    ]


def test_extends_in_a_circle_or_missing(tmp_path, refusal):
    (tmp_path / "other.yaml").write_text("extends: recipe.yaml\n")
    assert refusal("extends: other.yaml\n") == [
        "other.yaml:1: extends runs in a circle: recipe.yaml → other.yaml → recipe.yaml"
    ]
    [line] = refusal("seed: 1\nextends: sft_lora.yaml\n")
    assert line.startswith("recipe.yaml:2: extends: there is no file 'sft_lora.yaml' beside this one")
    assert "`ftk recipe copy sft_lora`" in line


def test_missing_file_folder_empty_and_scalar(tmp_path, monkeypatch, refusal):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(BASE)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.yaml").write_text(BASE)
    for path, part in [("mien.yaml", "Did you mean mine.yaml?"), ("quickstart.yaml", "ftk recipe copy quickstart"),
                       ("run", "is a folder")]:  # fmt: skip
        with pytest.raises(RecipeError, match=r"there is no such file|is a folder") as caught:
            load_recipe(path)
        assert part in str(caught.value)
    assert refusal("# nothing\n")[0].startswith("recipe.yaml: is empty")
    assert "is no recipe" in refusal("- 1\n- 2\n")[0]


def test_secrets_of_the_environment_are_never_written(load, refusal):
    env = {"SECRET": "hunter2", "BATCH": "7"}
    text = (
        'model: {id: "${SECRET}/m"}\ndata: {train: "${SECRET}/rows.jsonl", max_length: 99}\n'
        "training:\n  batch_size: ${BATCH}\n"
    )
    loaded = load(text, "output.push_to_hub=me/${SECRET}", env=env)
    assert loaded.recipe.model.id == "hunter2/m"
    assert loaded.recipe.data.train[0].source == "hunter2/rows.jsonl"
    assert loaded.recipe.training.batch_size == 7
    assert loaded.resolved()["data"]["train"][0]["source"] == "${SECRET}/rows.jsonl"
    assert loaded.resolved()["training"]["batch_size"] == "${BATCH}"
    assert "hunter2" not in loaded.as_yaml()
    lines = refusal(text + 'seed: "${SECRET}"\ntuning: "${SECRET}"\nmodl: "${SECRET}"\n', env=env)
    assert "hunter2" not in "\n".join(lines)


def test_resolved_recipe_loads_to_the_same(load):
    text = (
        'model: "${M}"\ndata: {train: [{source: a, columns: {question: "$${q}"}}], eval: b}\n'
        "evaluation: {metrics: [f1, my:metric], early_stopping: {patience: 2}, every: 0.5 epochs}\n"
        "checkpoint: {every: 10}\noutput: {folder: no}\nquantization: nf4\n"
    )
    first = load(text, "training.optimizer.betas=[0.8, 0.99]", env={"M": "some/model"})
    second = load(first.as_yaml(), env={"M": "some/model"})
    assert second.recipe == first.recipe
    assert second.as_yaml() == first.as_yaml()
    assert first.recipe.data.train[0].columns == {"question": "${q}"}


def test_validate_imports_neither_transformers_nor_peft():
    program = (
        "import sys; from ftk.recipe.load import load_recipe; load_recipe(sys.argv[1]);"
        "import json; print(json.dumps([m for m in sys.modules if '.' not in m]))"
    )
    recipe = Path(__file__).parents[2] / "recipes" / "quickstart.yaml"
    done = subprocess.run([sys.executable, "-c", program, str(recipe)], capture_output=True, text=True, check=True)
    loaded = set(json.loads(done.stdout))
    assert "torch" in loaded
    assert not loaded & {"transformers", "peft", "bitsandbytes", "datasets", "accelerate", "matplotlib", "pyarrow"}
