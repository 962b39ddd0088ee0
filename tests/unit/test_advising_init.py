"""`ftk init`: what columns mean, what is chosen of it, and recipes that hold."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from run_ftk import Ftk

from ftk.core.errors import DataError
from ftk.recipe.advice import LEARNING_RATES
from ftk.recipe.load import load_recipe
from ftk.runs.advising.choices import choices, learning_rate, max_length
from ftk.runs.advising.data_look import DataLook, look_at


def file_of(folder: Path, rows: Sequence[dict[str, Any]]) -> str:
    path = folder / "rows.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return str(path)


PAIR = {"prompt": "How many?", "chosen": "Two.", "rejected": "Three."}
TURNS = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
JUDGED = {"prompt": "How many?", "completion": "Two.", "label": True}


@pytest.mark.parametrize(
    ("row", "kind", "format", "loss"),
    [
        ({"messages": TURNS}, "sft", "messages", "dpo"),
        ({"instruction": "a", "input": "", "output": "b"}, "sft", "alpaca", "dpo"),
        (PAIR, "preference", "pairs", "dpo"),
        (JUDGED, "preference", "unpaired", "kto"),
        # A class is no verdict, and what was judged is an answer to be learned.
        ({**JUDGED, "label": "spam"}, "sft", "prompt_completion", "dpo"),
        ({"text": "A story."}, "cpt", "text", "dpo"),
        ({"Problem": "1 + 1", "solution": "2", "level": 3}, "sft", "question_answer", "dpo"),
    ],
)
def test_kind_and_format_from_the_columns(tmp_path, row, kind, format, loss):
    look = look_at(file_of(tmp_path, [row] * 30), None)
    assert (look.kind, look.format, look.loss, look.num_rows) == (kind, format, loss, 30)


def test_columns_that_say_nothing_are_an_error(tmp_path):
    with pytest.raises(DataError, match="the columns a, b do not say what is asked"):
        look_at(file_of(tmp_path, [{"a": "1", "b": "2"}]), None)


def test_plain_text_is_read_on(tmp_path):
    path = tmp_path / "book.txt"
    path.write_text("A long story.\n" * 100)
    look = look_at(str(path), None)
    assert (look.kind, look.lengths, look.num_rows, look.num_parts) == ("cpt", (700,), 1, 100)


def test_source_code_is_filled_in(tmp_path):
    for number in range(3):
        (tmp_path / f"{number}.py").write_text("x = 1\n")
    (tmp_path / "README.md").write_text("Read me.")
    seen = look_at(str(tmp_path), None)
    assert (seen.kind, seen.source.glob, seen.num_rows) == ("infill", ("**/*.py",), 3)


def test_a_folder_of_nothing_is_an_error(tmp_path):
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    with pytest.raises(DataError, match="neither rows"):
        look_at(str(tmp_path), None)


def look(**values: Any) -> DataLook:
    given = {
        "kind": "sft",
        "format": "messages",
        "reason": "",
        "num_rows": 4,
        "lengths": (10, 20, 30, 40),
        "answers": (5,),
    }
    source = look_at.__globals__["Source"](source="rows.jsonl")
    return DataLook(source=source, **{**given, **values})


def test_lengths_from_the_data():
    """Everything has room where that is cheap; else what 99% of the rows need, within the model's positions."""
    assert max_length(look(), None)[:2] == (64, True)
    few_long = look(lengths=(100,) * 990 + (5000,) * 10, num_rows=1000)
    assert max_length(few_long, None)[:2] == (128, False)
    assert max_length(look(lengths=(900, 3000)), 2048)[:2] == (2048, False)
    # Rows that were not counted may be longer than all that were.
    assert max_length(look(num_rows=10_000), None)[:2] == (64, False)


def values(seen: DataLook, **model: Any) -> dict[str, Any]:
    given = {"num_parameters": 8 * 10**9, "positions": 8192, "on_gpu": True, "model": "a/b"}
    return {choice.path: choice.value for choice in choices(seen, **{**given, **model})}


@pytest.mark.parametrize(("rows", "epochs"), [(100, 4), (5_000, 3), (20_000, 2), (100_000, 1)])
def test_epochs_fall_with_the_rows(rows, epochs):
    assert values(look(num_rows=rows))["training.epochs"] == epochs


def test_tuning_from_rows_and_size():
    assert values(look(num_rows=5_000))["tuning.name"] == "lora"
    assert values(look(num_rows=200_000))["tuning.name"] == "full"
    assert values(look(num_rows=5_000), num_parameters=10**6)["tuning.name"] == "full"
    assert values(look(num_rows=500), num_parameters=10**6)["tuning.name"] == "lora"
    assert values(look(kind="preference", num_rows=200_000))["tuning.name"] == "lora"


@pytest.mark.parametrize("kind", ["sft", "cpt", "infill", "preference"])
@pytest.mark.parametrize("size", [10**6, 10**9, 7 * 10**10])
def test_rates_are_customary(kind, size):
    """Adapters take more than all weights do, preferences less than answers; none is what advice calls unusual."""
    full, lora = (learning_rate(kind, tuning, size)[0] for tuning in ("full", "lora"))
    assert LEARNING_RATES[0] <= full <= lora <= LEARNING_RATES[1]
    assert learning_rate("preference", "lora", size)[0] <= lora


def test_few_rows_are_all_trained_on():
    assert "data.eval" not in values(look(num_rows=10))
    assert values(look(num_rows=100))["data.eval"]["split"] == "train[80%:]"
    assert values(look(num_rows=60_000))["data.eval"]["split"] == "train[-1000:]"


def test_a_recipe_for_a_large_model_without_its_tokenizer(ftk_json: Ftk, tmp_path, monkeypatch):
    """12 GB are too few for 8B in 16 bits: the recipe says QLoRA, and why; tokens are guessed, and said to be."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    out = tmp_path / "recipe.yaml"
    words = ("init", "ftk://orders/train", "--model", "meta-llama/Llama-3.1-8B-Instruct", "--gpu", "12GB", "--out", out)
    answer = ftk_json(*words)
    assert answer["exit_code"] == 0, answer
    assert "Tokens are guessed from characters" in answer["stderr"]
    assert not answer["tokens_counted"]
    assert answer["expected_bytes"] <= answer["memory_bytes"] == 12 * 10**9
    recipe = load_recipe(str(out)).recipe
    assert (recipe.tuning.name, recipe.quantization.name) == ("lora", "nf4")
    assert "# so that it fits: QLoRA" in out.read_text()
    again = ftk_json(*words)
    assert again["exit_code"] == 2
    assert "not overwritten" in again["error"]["message"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("ftk://orders/train", "--gpu", "0GB"), "not above zero"),
        (("ftk://orders/trian", "--gpu", "1GB"), "no such data set"),
        (("ftk://orders/train", "--gpu", "1kB"), "cannot be trained on these rows in 1 kB"),
        (("missing.jsonl", "--gpu", "1GB"), "no such file"),
    ],
)
def test_bad_input_writes_nothing(ftk_json: Ftk, tmp_path, words, message):
    answer = ftk_json("init", *words, "--model", "ftk://tiny", "--out", tmp_path / "recipe.yaml")
    assert answer["exit_code"] == 2
    assert message in answer["error"]["message"]
    assert not list(tmp_path.iterdir())
