"""Infilling from the command line: trained, measured, resumed, merged, generated with and refused."""

import json
from pathlib import Path

import pytest
import torch
from infill_tokenizers import of_bytes
from run_ftk import Ftk
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from ftk.models.load import load_model
from ftk.models.settings import ModelSettings

LINES = [f"def area_{n}(width):\n    other = width * {n}\n    return other\n\n" for n in range(40)]


@pytest.fixture
def code(tmp_path: Path) -> Path:
    path = tmp_path / "code.py"
    path.write_text("".join(LINES))
    return path


def recipe_for(model: Path | str, code: Path, folder: Path) -> Path:
    path = folder / "infill.yaml"
    path.write_text(
        f"""\
model: {model}
task: {{name: infill, cut: line, fim_rate: 0.8}}
data:
  train: {{source: {code}, split: "train[:80%]"}}
  eval: {{source: {code}, split: "train[80%:]"}}
  max_length: 64
tuning: full
training: {{max_steps: 4, batch_size: 4, micro_batch_size: 2, learning_rate: 1.0e-2, precision: fp32}}
evaluation: {{metrics: [infilling_exact_match, edit_similarity], max_rows: 4, max_new_tokens: 8}}
checkpoint: {{every: 1, keep: 10}}
output: {folder / "run"}
"""
    )
    return path


@pytest.fixture
def recipe(tmp_path: Path, model_folder: Path, code: Path) -> Path:
    return recipe_for(model_folder, code, tmp_path)


def without_marks(folder: Path, *, tied: bool) -> Path:
    """A random Llama whose tokenizer has no tokens for infilling."""
    tokenizer = of_bytes(bos="<s>")
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = LlamaConfig(
        **sizes,
        vocab_size=len(tokenizer),
        max_position_embeddings=128,
        tie_word_embeddings=tied,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder / "bare")
    tokenizer.save_pretrained(folder / "bare")
    return folder / "bare"


@pytest.mark.parametrize("packing", ["true", "false"])
def test_holes_are_filled_and_reading_on_is_measured(recipe: Path, ftk_json: Ftk, packing: str) -> None:
    answer = ftk_json("train", recipe, f"data.packing={packing}")
    assert answer["exit_code"] == 0, answer["stderr"]
    assert "rearranged for infilling in the format of Qwen-Coder" in answer["stderr"]
    figures = {"loss", "bits_per_byte", "left_to_right_loss", "left_to_right_bits_per_byte"}
    after = answer["evaluation"]["after"]
    assert figures | {"infilling_exact_match", "edit_similarity", "general_loss"} <= set(after)
    assert after["left_to_right_loss"] < answer["evaluation"]["before"]["left_to_right_loss"]
    run = Path(answer["run_folder"])
    kept = [json.loads(line) for line in (run / "evaluations" / "answers_after.jsonl").read_text().splitlines()]
    assert len(kept) == 4
    assert all(row["reference"] in "".join(LINES) and "<|fim_middle|>" in row["prompt"] for row in kept)
    again = ftk_json("eval", run)
    assert again["exit_code"] == 0, again["stderr"]
    for name in figures | {"edit_similarity"}:
        assert again["metrics"][name] == pytest.approx(after[name], rel=1e-5), name


@pytest.mark.parametrize("tied", [True, False])
def test_added_tokens_are_trained_saved_resumed_merged_and_used(
    tmp_path: Path, code: Path, ftk_json: Ftk, tied: bool
) -> None:
    base = without_marks(tmp_path, tied=tied)
    recipe = recipe_for(base, code, tmp_path)
    words = ("tuning={name: lora, rank: 2}", "training.epochs=1", "evaluation.max_rows=2")
    answer = ftk_json("train", recipe, *words)
    assert answer["exit_code"] == 0, answer["stderr"]
    assert "<|fim_prefix|>, <|fim_middle|>, <|fim_suffix|> are added" in answer["stderr"]
    run = Path(answer["run_folder"])
    trained = load_model(ModelSettings(id=str(run)), dtype=torch.float32).eval()
    num_before = LlamaConfig.from_pretrained(base).vocab_size
    rows = trained.get_input_embeddings().weight
    assert len(rows) == num_before + 3
    heads = trained.get_output_embeddings().weight
    assert torch.equal(heads, rows) is tied
    old = AutoModelForCausalLM.from_pretrained(base)
    assert torch.equal(rows[:num_before], old.get_input_embeddings().weight)
    assert torch.equal(heads[:num_before], old.get_output_embeddings().weight)
    # They start at the mean, and have moved; as inputs each its own way, while as outputs none is ever right.
    for matrix in (rows, heads):
        moved = matrix[num_before:] - matrix[:num_before].mean(dim=0)
        assert (moved.abs().max(dim=1).values > 1e-3).all()
    assert not torch.allclose(rows[-1], rows[-2], atol=1e-4)
    again = ftk_json("eval", run)
    assert again["metrics"]["loss"] == pytest.approx(answer["evaluation"]["after"]["loss"], rel=1e-5)
    filled = ftk_json(
        "generate", run, "--prefix", "def area(width):\n", "--suffix", "    return other\n", "--max-new-tokens", "6"
    )
    assert filled["exit_code"] == 0, filled["stderr"]

    merged = ftk_json("merge", run, "--out", tmp_path / "merged")
    assert merged["exit_code"] == 0, merged["stderr"]
    whole = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
    assert whole.config.vocab_size == num_before + 3
    tokens = torch.tensor([[3, num_before, 5, num_before + 2, 9, num_before + 1, 4]])
    with torch.no_grad():
        torch.testing.assert_close(whole(tokens).logits, trained(tokens).logits, rtol=1e-4, atol=1e-5)
    same = ftk_json(
        "generate",
        tmp_path / "merged",
        "--prefix",
        "def area(width):\n",
        "--suffix",
        "    return other\n",
        "--max-new-tokens",
        "6",
    )
    assert same["text"] == filled["text"]

    # A further run goes on with the adapter and its rows.
    further = recipe_for(run, code, tmp_path / "merged")
    answer = ftk_json("train", further, *words, "tuning=lora")
    assert answer["exit_code"] == 0, answer["stderr"]
    later = load_model(ModelSettings(id=answer["run_folder"]), dtype=torch.float32)
    assert not torch.equal(later.get_input_embeddings().weight[num_before:], rows[num_before:])


def test_under_full_tuning_added_tokens_are_part_of_the_model(tmp_path: Path, code: Path, ftk_json: Ftk) -> None:
    recipe = recipe_for(without_marks(tmp_path, tied=True), code, tmp_path)
    answer = ftk_json("train", recipe)
    assert answer["exit_code"] == 0, answer["stderr"]
    tokenizer = AutoTokenizer.from_pretrained(answer["model_folder"])
    model = AutoModelForCausalLM.from_pretrained(answer["model_folder"])
    assert model.config.vocab_size == len(tokenizer) == len(model.get_input_embeddings().weight)
    assert ftk_json("generate", answer["run_folder"], "--prefix", "def ", "--max-new-tokens", "2")["exit_code"] == 0


def test_preview_shows_what_is_given_and_what_is_learned(recipe: Path, ftk_json: Ftk) -> None:
    shown = ftk_json("data", "preview", recipe, "--rows", "6", "task.fim_rate=1", "task.spm_rate=0")
    assert shown["exit_code"] == 0, shown["stderr"]
    for row in shown["rows"]:
        given = "".join(one["text"] for one in row["stretches"] if one["weight"] == 0)
        assert given == "<|begin|><|fim_prefix|><|fim_suffix|><|fim_middle|>"
        assert row["stretches"][-1]["text"].endswith("<|end|>")
    assert ftk_json("data", "stats", recipe)["exit_code"] == 0


def test_rows_with_holes_are_evaluated_beside_texts(
    recipe: Path, model_folder: Path, code: Path, tmp_path: Path, ftk_json: Ftk
) -> None:
    rows = [
        {
            "prompt": "def f():\n",
            "suffix": "",
            "canonical_solution": "    return 1\n",
            "test": "def check(f):\n    assert f() == 1\n",
            "entry_point": "f",
        },
        {
            "prompt": "x = 1\n" * 400,
            "suffix": "z = 3\n" * 400,
            "canonical_solution": "y = 2\n",
            "test": "",
            "entry_point": "f",
        },
    ]
    path = tmp_path / "holes.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    both = f'data.eval=[{{source: {code}, split: "train[80%:]"}}, {path}]'
    answer = ftk_json("train", recipe, both, "evaluation.max_rows=null", "training.max_steps=1")
    assert answer["exit_code"] == 0, answer["stderr"]
    kept = (Path(answer["run_folder"]) / "evaluations" / "answers_after.jsonl").read_text().splitlines()
    assert [json.loads(line)["reference"] for line in kept[-2:]] == ["    return 1\n", "y = 2\n"]
    alone = ftk_json(
        "eval",
        model_folder,
        "--data",
        path,
        "--metrics",
        "infilling_exact_match",
        "--max-new-tokens",
        "4",
        "--output",
        tmp_path / "a.jsonl",
    )
    assert alone["exit_code"] == 0, alone["stderr"]
    assert alone["num_examples"] == 2
    asked = "{name: infilling_pass_at_1, run_generated_code: true}"
    run = ftk_json(
        "eval",
        model_folder,
        "--data",
        path,
        "--metrics",
        f"[{asked}]",
        "--max-new-tokens",
        "4",
        "--output",
        tmp_path / "b.jsonl",
    )
    assert run["metrics"]["infilling_pass_at_1"] == 0.0
    not_asked = ftk_json("eval", model_folder, "--data", path, "--metrics", "infilling_pass_at_1")
    assert not_asked["exit_code"] == 2
    assert "run_generated_code: true" in not_asked["error"]["message"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["task.fim_rate=0"], "expected more than 0"),
        (["task.cut=lines"], "Did you mean line?"),
        (["task={name: infill, cut: syntax, longest_middle: 2}"], "as long as they are"),
        (["data.overlap=8"], "does not go with task.level: context"),
        (["evaluation.shots=[0, 2]"], "holes have none"),
        (["task=cpt"], "plain text has none"),
        (["task=sft"], "task: sft fills none"),
        (["evaluation.metrics=infilling_pass_at_1"], "runs code that the model wrote"),
        (["evaluation.metrics={name: infilling_pass_at_1, run_generated_code: true}"], "has no test"),
        (["data.train.0.columns={prefix: a, suffix: b, middle: c}"], "a text has one part"),
        (['data.train.0.separator="\\n"', "task.cut=line", "task.fim_rate=1"], "less than two lines"),
    ],
)
def test_what_does_not_go_with_infilling_is_refused(
    recipe: Path, tmp_path: Path, ftk_json: Ftk, overrides: list[str], message: str
) -> None:
    answer = ftk_json("train", recipe, *overrides)
    assert answer["exit_code"] == 2, answer
    assert message in answer["error"]["message"]
    assert not (tmp_path / "run").exists()


def test_generate_says_what_a_hole_needs(model_folder: Path, tmp_path: Path, ftk_json: Ftk) -> None:
    bare = without_marks(tmp_path, tied=True)
    for words, message in (
        ([bare, "--prefix", "x"], "has no tokens for infilling"),
        ([model_folder, "--prefix", "", "--suffix", ""], "nothing around the hole"),
        ([model_folder, "hello", "--prefix", "x"], "do not go"),
        ([model_folder], "there is no prompt"),
        ([model_folder, "--prefix", "x = 1\n" * 300], "256 positions"),
    ):
        answer = ftk_json("generate", *words)
        assert answer["exit_code"] == 2, words
        assert message in answer["error"]["message"]
