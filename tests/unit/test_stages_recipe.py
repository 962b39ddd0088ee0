"""A chain of stages as a file: what each stage is, and what is wrong is told with its line."""

from pathlib import Path

import pytest
from run_ftk import Ftk

from ftk.core.errors import RecipeError
from ftk.recipe.json_schema import recipe_schema
from ftk.recipe.load import load_recipe
from ftk.recipe.load_stages import load_stages
from ftk.recipe.schema import Recipe
from ftk.recipe.stages import LoadedChain
from ftk.recipe.yaml_text import write_yaml

SHARED = """\
model: {id: ftk://tiny, revision: abc}
tuning: {name: lora, rank: 8}
training: {epochs: 2, schedule: {name: wsd, decay_ratio: 0.5}}
data: {train: rows.jsonl, max_length: 128}
output: runs/code
seed: 7
"""
STAGES = """\
stages:
  - id: words
    task: cpt
    data: {train: {source: book.txt, limit: 100 tokens}}
    training: {schedule: {name: constant}, learning_rate: 1e-3}
  - id: answers
    training: {epochs: 1}
  - id: other
    from: words
    tuning: {rank: 16}
  - id: alone
    model: ./elsewhere
"""


def chain_of(tmp_path: Path, text: str, *overrides: str) -> LoadedChain:
    path = tmp_path / "chain.yaml"
    path.write_text(text)
    loaded = load_stages(str(path), overrides)
    assert isinstance(loaded, LoadedChain)
    return loaded


def test_a_stage_says_what_differs_from_the_shared_part(tmp_path: Path) -> None:
    chain = chain_of(tmp_path, SHARED + STAGES)
    words, answers, other, alone = (stage.loaded.recipe for stage in chain.stages)
    assert [stage.id for stage in chain.stages] == ["words", "answers", "other", "alone"]
    assert [stage.start.id if stage.start else None for stage in chain.stages] == [None, "words", "words", None]
    # Another name replaces the section whole: no decay_ratio is left over.
    assert words.training.schedule.model_dump() == {"name": "constant", "warmup_ratio": 0.0, "warmup_steps": None}
    assert (words.training.epochs, words.training.learning_rate, words.data.max_length) == (2, 1e-3, 128)
    assert (answers.task.name, answers.training.epochs, answers.training.schedule.name) == ("sft", 1, "wsd")
    assert [recipe.output.folder for recipe in (words, answers)] == ["runs/code/words", "runs/code/answers"]
    assert [recipe.model.id for recipe in (words, answers, other, alone)] == [
        "ftk://tiny",
        "runs/code/words",
        "runs/code/words",
        "./elsewhere",
    ]
    # A revision is of the model that the chain begins with.
    assert [recipe.model.revision for recipe in (words, answers)] == ["abc", None]
    # Another rank needs an adapter of its own; the same adapter goes on.
    assert [stage.merges for stage in chain.stages] == [False, False, True, False]


def test_overrides_change_the_shared_part_or_one_stage(tmp_path: Path) -> None:
    chain = chain_of(tmp_path, SHARED + STAGES, "training.batch_size=4", "stages.answers.training.epochs=9", "seed=1")
    assert [stage.loaded.recipe.training.epochs for stage in chain.stages] == [2, 9, 2, 2]
    assert {stage.loaded.recipe.training.batch_size for stage in chain.stages} == {4}
    with pytest.raises(RecipeError, match=r"there is no stage anwers\. Did you mean answers"):
        chain_of(tmp_path, SHARED + STAGES, "stages.anwers.training.epochs=9")
    with pytest.raises(RecipeError, match=r"Expected stages\.ID\.path=value"):
        chain_of(tmp_path, SHARED + STAGES, "stages.answers=3")


def contexts_of(chain: LoadedChain) -> list[tuple[int | None, bool] | None]:
    """Of each stage the length that it extends its model to, and whether its attention is LongLoRA's."""
    contexts = [stage.loaded.recipe.model.context for stage in chain.stages]
    return [one and (one.length, one.shifted_sparse_attention is not None) for one in contexts]


@pytest.mark.parametrize(
    ("context", "first", "later"),
    [
        ("{length: 4096, scaling: ntk}", (4096, False), None),
        ("{scaling: {name: yarn, factor: 4}}", (None, False), None),
        ("{length: 4096, shifted_sparse_attention: {}}", (4096, True), (None, True)),
        ("{shifted_sparse_attention: {}}", (None, True), (None, True)),
    ],
)
def test_positions_are_extended_once_and_attention_is_every_stages(
    tmp_path: Path, context: str, first: tuple[int | None, bool], later: tuple[int | None, bool] | None
) -> None:
    chain = chain_of(tmp_path, SHARED.replace("revision: abc", f"context: {context}") + STAGES)
    # The last stage starts from a model of its own.
    assert contexts_of(chain) == [first, later, later, first]


def test_positions_are_extended_where_they_are_not_yet(tmp_path: Path) -> None:
    shared = SHARED.replace("revision: abc", "context: {length: 4096, shifted_sparse_attention: {}}")
    stages = (
        "stages:\n"
        "  - {id: short, model: {context: null}}\n"
        "  - {id: long}\n"
        "  - {id: after, model: {context: {shifted_sparse_attention: null}}}\n"
        "  - {id: longer, model: {context: {length: 8192}}}\n"
        "  - {id: last}\n"
        "  - {id: other, from: short}\n"
    )
    chain = chain_of(tmp_path, shared + stages)
    assert contexts_of(chain) == [None, (4096, True), None, (8192, True), (None, True), (4096, True)]


def test_the_hub_receives_the_last_model_alone(tmp_path: Path) -> None:
    shared = SHARED.replace("output: runs/code", "output: {folder: runs/code, push_to_hub: me/code}")
    chain = chain_of(tmp_path, shared + STAGES)
    assert [stage.loaded.recipe.output.push_to_hub for stage in chain.stages] == [None, None, None, "me/code"]


def test_the_resolved_chain_loads_to_the_same_stages(tmp_path: Path) -> None:
    chain = chain_of(tmp_path, SHARED + STAGES)
    again = chain_of(tmp_path, chain.as_yaml())
    assert [stage.loaded.recipe for stage in again.stages] == [stage.loaded.recipe for stage in chain.stages]
    assert [(stage.merges, stage.start and stage.start.id) for stage in again.stages] == [
        (stage.merges, stage.start and stage.start.id) for stage in chain.stages
    ]


def test_everything_wrong_is_told_with_its_line(tmp_path: Path) -> None:
    wrong = SHARED + (
        "stages:\n"
        "  - id: one\n"
        "    trainig: {epochs: 1}\n"  # line 9
        "  - id: one\n"  # 10
        "  - id: two\n"
        "    fron: one\n"  # 12
        "  - id: three\n"
        "    from: twoo\n"  # 14
        "  - id: four\n"
        "    from: five\n"  # 16
        "  - id: five\n"
        "    from: five\n"  # 18
        "  - id: six\n"
        "    from: one\n"
        "    model: ./x\n"
        "  - id: a b\n"  # 22
        "  - task: cpt\n"  # 23
        "  - id: two-2\n"  # 24
        "    tuning: {rank: 0}\n"  # 25
        "  - id: full\n"
        "    tuning: full\n"
        "  - id: after\n"
        "    merge: true\n"  # 29
    )
    with pytest.raises(RecipeError) as caught:
        chain_of(tmp_path, wrong)
    told = str(caught.value)
    for line, message in (
        (9, "stages.one.trainig is no key of a stage. Did you mean training?"),
        (10, "two stages have the id one"),
        (12, "stages.two.fron is no key of a stage. Did you mean from?"),
        (14, "there is no earlier stage twoo. Did you mean two?"),
        (16, "stage four starts from five, which comes later"),
        (18, "stage five starts from itself"),
        (20, "stage six says where it starts twice"),
        (22, "id is 'a b', expected text of the form"),
        (23, "a stage needs an id"),
        (24, "the folder two-2 is where two goes when it is trained anew"),
        (25, "tuning.rank is 0, expected more than 0"),
        (29, "stage after starts from full, which is tuned in full: nothing to merge"),
    ):
        assert f"chain.yaml:{line}: {message}" in told, (line, message, told)


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ("stages: []\n", r"chain\.yaml:7: stages is a list of stages in order"),
        ("stages: {one: two}\n", "stages is a list of stages"),
        ("stages: [3]\n", "a stage is 3, expected a mapping with an id"),
        ("stages:\n  - {id: a, task: {name: cptt}}\n", "Did you mean cpt"),
        ("stages:\n  - {id: a, from: b}\n", "there is no earlier stage b. There are: none"),
        (
            "stages:\n  - {id: a}\n  - {id: b, output: runs/code/a}\n",
            r"yaml:9: stage b would go to the folder of stage a",
        ),
        ("stages:\n  - {id: a, merge: true}\n", "starts from no earlier stage"),
        ("stages:\n  - {id: a, tuning: full, quantization: nf4}\n", "stage a: quantization: nf4 and tuning: full"),
    ],
)
def test_what_is_no_chain_is_refused(tmp_path: Path, stages: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        chain_of(tmp_path, SHARED + stages)


def test_a_misspelt_stages_is_found(tmp_path: Path) -> None:
    path = tmp_path / "chain.yaml"
    path.write_text(SHARED + STAGES.replace("stages:", "stags:"))
    with pytest.raises(RecipeError, match="Did you mean stages"):
        load_stages(str(path))


def test_commands_of_one_recipe_say_how_to_take_a_stage(tmp_path: Path) -> None:
    chain_of(tmp_path, SHARED + STAGES)
    with pytest.raises(RecipeError, match=r"chain\.yaml:7: is a chain of stages.*--stage ID"):
        load_recipe(str(tmp_path / "chain.yaml"))


def test_show_writes_a_stage_as_a_recipe(tmp_path: Path, ftk_json: Ftk) -> None:
    chain = chain_of(tmp_path, SHARED + STAGES)
    shown = ftk_json("recipe", "show", tmp_path / "chain.yaml", "--stage", "answers")["recipe"]
    (tmp_path / "stage.yaml").write_text(write_yaml(shown))
    assert load_recipe(str(tmp_path / "stage.yaml")).recipe == chain.stage("answers").loaded.recipe
    none = ftk_json("recipe", "show", tmp_path / "chain.yaml", "--stage", "answer")
    assert none["exit_code"] == 2
    assert "there is no stage answer. Did you mean answers?" in none["stderr"]
    one = ftk_json("recipe", "show", tmp_path / "stage.yaml", "--stage", "answers")
    assert "has no stages" in one["error"]["message"]
    assert ftk_json("recipe", "validate", tmp_path / "chain.yaml")["valid"]


def test_the_schema_for_editors_knows_stages() -> None:
    schema = recipe_schema()
    stage = schema["properties"]["stages"]["items"]
    assert set(stage["properties"]) == {"id", "from", "merge", "generate", *Recipe.model_fields}
    assert "temperature" in schema["$defs"]["Generate"]["properties"]
    assert (stage["required"], stage["additionalProperties"]) == (["id"], False)
    assert {"required": ["stages"]} in schema["anyOf"]
