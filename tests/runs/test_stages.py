"""A chain from its file to its table: pretraining, answers by an adapter, another one above the first one merged."""

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from run_ftk import Ftk, start_ftk

CHAIN = """\
model: {model}
data: {{train: {rows}, eval: {rows}, max_length: 128}}
training: {{max_steps: 3, batch_size: 4, learning_rate: 1.0e-2, precision: fp32, schedule: constant}}
evaluation: {{before: false, metrics: []}}
checkpoint: {{every: 1}}
output: {folder}
stages:
  - id: book
    task: cpt
    data: {{train: {book}, eval: {book}}}
    tuning: full
  - id: answers
    tuning: {{name: lora, rank: 4}}
  - id: more
    tuning: {{name: lora, rank: 8}}
"""


@pytest.fixture
def chain_file(tmp_path: Path, model_folder: Path, rows_file: Path) -> Path:
    book = tmp_path / "book.txt"
    book.write_text("".join(f"Line {number} of a short book.\n" for number in range(60)))
    path = tmp_path / "chain.yaml"
    path.write_text(CHAIN.format(model=model_folder, rows=rows_file, book=book, folder=tmp_path / "chain"))
    return path


def ended(*words: str | Path) -> tuple[int, dict[str, Any], str]:
    process = start_ftk("train", *words, "--json")
    out, errors = process.communicate(timeout=300)
    return process.returncode, json.loads(out.splitlines()[-1]), errors


def test_a_chain_stops_goes_on_and_compares_its_stages(chain_file: Path, tmp_path: Path, ftk_json: Ftk) -> None:
    folder = tmp_path / "chain"
    # SIGTERM in the second stage: a checkpoint, exit code 75, and the same command goes on.
    long = "stages.answers.training.max_steps=5000"
    process = start_ftk("train", chain_file, long)
    metrics, deadline = folder / "answers" / "metrics.jsonl", time.monotonic() + 120
    while not (metrics.exists() and metrics.read_bytes().count(b"\n") >= 2):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 75, errors
    assert "same command goes on" in errors
    saved = max(int(path.name.removeprefix("step-")) for path in (folder / "answers" / "checkpoints").glob("step-*"))

    length = f"stages.answers.training.max_steps={saved + 2}"
    code, answer, errors = ended(chain_file, length)
    assert code == 0, errors
    assert "Traceback" not in errors
    assert [stage["status"] for stage in answer["stages"]] == ["skipped", "resumed", "trained"]
    assert f"going on from step {saved}" in errors
    # Another rank: the adapter of `answers` became part of its base.
    assert "is folded into its base first" in errors
    adapter = json.loads((folder / "more" / "model" / "adapter_config.json").read_text())
    assert adapter["r"] == 8
    assert Path(adapter["base_model_name_or_path"]) == folder / "answers" / "merged"

    # Every model on every stage's held-out rows, as `ftk eval` measures it and each run did.
    cells = {(one["evaluated_on"], one["model"]): one["metrics"] for one in answer["comparison"]}
    assert set(cells) == {(on, of) for on in ("book", "answers", "more") for of in ("base", "book", "answers", "more")}
    for id in ("answers", "more"):
        own = json.loads((folder / id / "report.json").read_text())["evaluation"]["after"]
        assert cells[id, id]["loss"] == pytest.approx(own["loss"], rel=1e-4)
    assert "bits_per_byte" in cells["book", "base"]
    assert cells["book", "book"]["loss"] < cells["book", "base"]["loss"]
    measured = ftk_json("eval", folder / "book")["metrics"]
    assert cells["book", "book"]["loss"] == pytest.approx(measured["loss"], rel=1e-5)
    assert json.loads((folder / "comparison.json").read_text())["comparison"] == answer["comparison"]
    assert "| book: loss |" in (folder / "comparison.md").read_text()

    # All is complete: nothing is trained, and the table is the one that was made.
    code, again, errors = ended(chain_file, length)
    assert code == 0, errors
    assert [stage["status"] for stage in again["stages"]] == ["skipped"] * 3
    assert again["comparison"] == answer["comparison"]
    assert "comparing" not in errors


def test_a_stage_that_fails_ends_the_chain_with_its_code(chain_file: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty.txt"
    empty.write_text("")
    code, answer, errors = ended(chain_file, f"stages.book.data.train={empty}")
    assert (code, answer["stage"], answer["error"]["exit_code"]) == (2, "book", 2)
    assert "Traceback" not in errors
    assert not (tmp_path / "chain" / "answers").exists()
