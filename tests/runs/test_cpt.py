"""Continued pretraining from the command line: what is learned, measured, shown and refused."""

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from run_ftk import Ftk
from transformers import AutoModelForCausalLM, AutoTokenizer

LINES = [f"The {word} of line {number} is {number * number}.\n" for number in range(40) for word in ("sum", "root")]


@pytest.fixture
def book(tmp_path: Path) -> Path:
    path = tmp_path / "book.txt"
    path.write_text("".join(LINES))
    return path


@pytest.fixture
def recipe(tmp_path: Path, model_folder: Path, book: Path) -> Path:
    path = tmp_path / "cpt.yaml"
    path.write_text(
        f"""\
model: {model_folder}
task: cpt
data:
  train: {{source: {book}, split: "train[:90%]"}}
  eval: {{source: {book}, split: "train[90%:]"}}
  max_length: 64
  overlap: 16
tuning: full
training: {{epochs: 2, batch_size: 4, micro_batch_size: 2, learning_rate: 1.0e-2, precision: fp32}}
checkpoint: {{every: 1, keep: 10}}
output: {tmp_path / "run"}
"""
    )
    return path


@pytest.mark.parametrize("packing", ["true", "false"])
def test_a_text_is_learned_and_measured_by_the_byte(recipe: Path, ftk_json: Ftk, packing: str) -> None:
    answer = ftk_json("train", recipe, f"data.packing={packing}")
    assert answer["exit_code"] == 0, answer["stderr"]
    assert "every token is learned once" in answer["stderr"]
    before, after = (answer["evaluation"][when] for when in ("before", "after"))
    assert after["bits_per_byte"] < before["bits_per_byte"]
    assert after["perplexity"] == pytest.approx(math.exp(after["loss"]), rel=1e-9)
    assert {"general_loss", "general_perplexity", "general_bits_per_byte"} <= set(after)
    run = Path(answer["run_folder"])
    steps = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert all(line["bits_per_byte"] > 0 for line in steps)
    evaluations = [json.loads(line) for line in (run / "evaluations.jsonl").read_text().splitlines()]
    assert evaluations[-1]["bits_per_byte"] == pytest.approx(after["bits_per_byte"], rel=1e-6)
    assert "bits_per_byte" in (run / "report.md").read_text()
    again = ftk_json("eval", run)
    assert again["exit_code"] == 0, again["stderr"]
    assert again["metrics"]["bits_per_byte"] == pytest.approx(after["bits_per_byte"], rel=1e-5)
    generation = json.loads((run / "model" / "generation_config.json").read_text())
    assert generation["eos_token_id"][0] == AutoTokenizer.from_pretrained(run / "model").eos_token_id


def test_bits_per_byte_are_those_of_transformers(recipe: Path, book: Path, model_folder: Path, ftk_json: Ftk) -> None:
    """A held-out text that fits a row: BOS, text and end by transformers' own loss, over the bytes of the text."""
    text = "".join(LINES[:3])
    (book.parent / "short.txt").write_text(text)
    words = [f"data.eval={book.parent / 'short.txt'}", "data.max_length=128", "training.max_steps=1"]
    answer = ftk_json("train", recipe, *words)
    assert answer["exit_code"] == 0, answer["stderr"]
    model, tokenizer = (one.from_pretrained(model_folder) for one in (AutoModelForCausalLM, AutoTokenizer))
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    bos = tokenizer("x")["input_ids"][:1]
    ids = torch.tensor([[*(bos if bos == [tokenizer.bos_token_id] else []), *ids, tokenizer.eos_token_id]])
    learned = text.encode() if bos == [tokenizer.bos_token_id] else text.encode()[len(tokenizer.decode(ids[0, 0])) :]
    with torch.no_grad():
        loss = model.eval()(ids, labels=ids).loss.item()
    before = answer["evaluation"]["before"]
    assert before["loss"] == pytest.approx(loss, rel=1e-5)
    assert before["bits_per_byte"] == pytest.approx(loss * (ids.shape[1] - 1) / math.log(2) / len(learned), rel=1e-5)


def test_a_model_without_a_chat_template_will_do(
    recipe: Path, model_folder: Path, tmp_path: Path, ftk_json: Ftk
) -> None:
    plain = Path(shutil.copytree(model_folder, tmp_path / "plain"))
    (plain / "chat_template.jinja").unlink()
    answer = ftk_json("train", recipe, f"model.id={plain}", "training.max_steps=1")
    assert answer["exit_code"] == 0, answer["stderr"]


def test_sources_are_mixed_by_weight_whatever_their_files(recipe: Path, book: Path, ftk_json: Ftk) -> None:
    weighted = f"data.train=[{{source: {book}, weight: 3}}, {{source: ftk://stdlib, glob: json/*.py, weight: 1}}]"
    answer = ftk_json("train", recipe, weighted, "training.max_steps=2")
    assert answer["exit_code"] == 0, answer["stderr"]
    assert "ftk://stdlib: " in answer["stderr"]


def test_the_second_time_texts_come_from_the_cache(
    recipe: Path, tmp_path: Path, ftk_json: Ftk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FTK_CACHE", str(tmp_path / "cache"))
    first, second = (ftk_json("train", recipe, "--fresh", "training.max_steps=2") for _ in range(2))
    assert "(from the cache)" not in first["stderr"]
    assert "(from the cache)" in second["stderr"]
    assert first["final_loss"] == second["final_loss"]
    for path in (tmp_path / "cache").glob("texts-*/token_ids.bin"):
        path.write_bytes(path.read_bytes()[:-8])
    third = ftk_json("train", recipe, "--fresh", "training.max_steps=2")
    assert "(from the cache)" not in third["stderr"]
    assert first["final_loss"] == third["final_loss"]


def test_preview_and_stats(recipe: Path, ftk_json: Ftk) -> None:
    shown = ftk_json("data", "preview", recipe, "--rows", "2")
    assert shown["exit_code"] == 0, shown["stderr"]
    first, second = shown["rows"]
    assert (first["num_tokens"], second["num_tokens"]) == (64, 64)
    assert [one["weight"] for one in second["stretches"]] == [0, 1]
    assert shown["prompt_weight_share"] is None
    counted = ftk_json("data", "stats", recipe)
    assert counted["exit_code"] == 0, counted["stderr"]
    assert (counted["train"]["num_rows"], counted["train"]["num_too_long"]) == (1, 1)
    assert counted["overlap"] == {"num_rows": 0, "num_prompts": 0}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["evaluation.metrics=exact_match"], "plain text has none"),
        (["data.chat_template=chatml"], "no turns to render"),
        (["data.truncation=right"], "none of them is lost"),
        (["data.overlap=40"], "more than half of data.max_length 64"),
        (["data.max_length=null", "data.overlap=200"], "more than half of a piece"),
        (["data.train.0.format=messages"], "tells how conversations are written"),
        (["data.train.0.limit=half"], "500000 tokens"),
        (["data.train.0.columns={question: q}"], "has one part, text"),
        (["data.train.0.glob='*.py'"], "glob is for folders"),
        (
            ["task=sft", "data.overlap=0", "data.train.0.limit=10"],
            "is of plain text, which task: cpt and task: infill learn from",
        ),
        (["task=sft"], "data.overlap is of pieces of plain text"),
        (["data.train.0.source=nowhere.txt"], "no such file"),
    ],
)
def test_what_does_not_go_with_plain_text_is_refused(
    recipe: Path, tmp_path: Path, ftk_json: Ftk, overrides: list[str], message: str
) -> None:
    answer = ftk_json("train", recipe, *overrides)
    assert answer["exit_code"] == 2, answer
    assert message in answer["error"]["message"]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("limit", "documents", "tokens"), [("2", 2, None), ("30 tokens", None, 30)])
def test_a_limit_ends_a_source(
    recipe: Path, book: Path, ftk_json: Ftk, limit: str, documents: int | None, tokens: int | None
) -> None:
    source = f'data.train={{source: {book}, separator: "\\n", limit: {limit}}}'
    answer = ftk_json("train", recipe, source, "training.max_steps=1")
    assert answer["exit_code"] == 0, answer["stderr"]
    (line,) = [
        line
        for line in answer["stderr"].splitlines()
        if line.startswith("train ") and " in " in line and "piece" in line
    ]
    assert "ended by its limit" in line
    assert documents is None or f"{documents} documents" in line
    # Ends of documents are learned besides.
    assert tokens is None or tokens <= int(line.split(", ")[1].split(" tokens")[0]) < tokens + 5
