"""ftk://orders as it ships: its sizes, that its answers are right, and that its unseen rows are unseen."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
KEYS = ["customer", "item", "quantity", "city", "date"]
MONTHS = "January|February|March|April|May|June|July|August|September|October|November|December"
DATE = rf"\d{{4}}-\d\d-\d\d|\d+ (?:{MONTHS}) \d{{4}}|(?:{MONTHS}) \d+, \d{{4}}"
NUMBER = r"(?:\d+|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve)"


def read(name: str) -> list[dict[str, Any]]:
    lines = (ROOT / "ftk" / "data" / "orders" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def train() -> list[dict[str, Any]]:
    return read("train")


@pytest.fixture(scope="module")
def held_out() -> list[dict[str, Any]]:
    return read("eval")


def frame(row: dict[str, Any]) -> str:
    """The row's sentence with its values taken out, found without knowing the script's frames."""
    answer = json.loads(row["completion"])
    text = row["prompt"]
    for key in ("customer", "item", "city"):
        text = text.replace(answer[key], f"<{key}>")
    text, num_dates = re.subn(DATE, "<date>", text)
    text, num_quantities = re.subn(rf"(?i)\b{NUMBER} (?=<item>)", "<quantity> ", text)
    assert num_dates == num_quantities == 1, row["prompt"]
    return text


def test_counts_and_columns(train: list[dict[str, Any]], held_out: list[dict[str, Any]]) -> None:
    assert (len(train), len(held_out)) == (2000, 200)
    assert all(list(row) == ["prompt", "completion", "unseen"] for row in train + held_out)
    assert not any(row["unseen"] for row in train)
    assert sum(row["unseen"] for row in held_out) / len(held_out) >= 1 / 3


def test_no_sentence_twice(train: list[dict[str, Any]], held_out: list[dict[str, Any]]) -> None:
    prompts = [row["prompt"] for row in train + held_out]
    assert len(set(prompts)) == len(prompts)


def test_answers_are_compact_json_with_values_from_the_sentence(
    train: list[dict[str, Any]], held_out: list[dict[str, Any]]
) -> None:
    for row in train + held_out:
        answer = json.loads(row["completion"])
        assert list(answer) == KEYS
        assert json.dumps(answer, ensure_ascii=False, separators=(",", ":")) == row["completion"]
        assert isinstance(answer["quantity"], int)
        assert all(answer[key] in row["prompt"] for key in ("customer", "item", "city"))
        assert re.fullmatch(r"20\d\d-\d\d-\d\d", answer["date"])
        assert answer["date"][:4] in row["prompt"]


def test_unseen_rows_share_neither_values_nor_frames_with_training(
    train: list[dict[str, Any]], held_out: list[dict[str, Any]]
) -> None:
    trained_words = set(re.findall(r"\w+", " ".join(row["prompt"] + row["completion"] for row in train)))
    trained_frames = {frame(row) for row in train}
    assert len(trained_frames) >= 24
    for row in held_out:
        answer = json.loads(row["completion"])
        values = {word for key in ("customer", "item", "city") for word in answer[key].split()}
        if row["unseen"]:
            assert not values & trained_words
            assert frame(row) not in trained_frames
        else:
            assert values <= trained_words


def test_script_writes_these_files_again() -> None:
    check = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "build_orders.py"), "--check"], capture_output=True, text=True
    )
    assert check.returncode == 0, check.stdout + check.stderr
