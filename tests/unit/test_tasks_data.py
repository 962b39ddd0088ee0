"""ftk://contacts and ftk://events as they ship: sizes, right answers, and unseen rows that are unseen."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ftk.data.source import SHIPPED

ROOT = Path(__file__).resolve().parents[2]
KEYS = {"contacts": ["name", "role", "company", "extension"], "events": ["event", "city", "day", "time"]}
NEW = {"contacts": ("name", "role", "company"), "events": ("event", "city")}
"""What unseen rows have new values of."""


def read(task: str, part: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in SHIPPED[f"ftk://{task}/{part}"].read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("task", KEYS)
def test_rows_are_sentences_and_their_fields(task: str) -> None:
    train, held_out = read(task, "train"), read(task, "eval")
    assert (len(train), len(held_out)) == (800, 120)
    assert len({row["prompt"] for row in train + held_out}) == 920
    for row in train + held_out:
        assert list(row) == ["prompt", "completion", "unseen"]
        answer = json.loads(row["completion"])
        assert list(answer) == KEYS[task]
        assert json.dumps(answer, ensure_ascii=False, separators=(",", ":")) == row["completion"]
        copied = [str(value) for key, value in answer.items() if key != "time"]
        assert all(value.lower() in row["prompt"].lower() for value in copied), row


def test_times_are_of_24_hours() -> None:
    for row in read("events", "train") + read("events", "eval"):
        hour, minute, half = re.search(r"(\d+):(\d\d)(?: ([ap]m))?", row["prompt"]).groups()
        expected = int(hour) if half is None else int(hour) % 12 + 12 * (half == "pm")
        assert json.loads(row["completion"])["time"] == f"{expected:02d}:{minute}"


@pytest.mark.parametrize("task", KEYS)
def test_unseen_rows_have_values_that_training_lacks(task: str) -> None:
    train, held_out = read(task, "train"), read(task, "eval")
    trained = {(key, json.loads(row["completion"])[key]) for row in train for key in NEW[task]}
    assert not any(row["unseen"] for row in train)
    assert sum(row["unseen"] for row in held_out) == 40
    for row in held_out:
        found = [(key, json.loads(row["completion"])[key]) in trained for key in NEW[task] if key != "name"]
        assert not any(found) if row["unseen"] else all(found)


def test_script_writes_these_files_again() -> None:
    check = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "build_tasks.py"), "--check"], capture_output=True, text=True
    )
    assert check.returncode == 0, check.stdout + check.stderr
