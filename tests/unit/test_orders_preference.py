"""The preferences of ftk://orders as they ship: right against wrong in one thing, and prompts kept apart."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
ORDERS = ROOT / "ftk" / "data" / "orders"
KEYS = ["customer", "item", "quantity", "city", "date"]
CHANGED = {
    # By kind of mistake: which fields may differ from the right answer, and how many do.
    "other_quantity": ({"quantity"}, 1),
    "other_item": ({"item"}, 1),
    "other_city": ({"city"}, 1),
    "other_date": ({"date"}, 1),
    "date_form": ({"date"}, 1),
    "misspelt_name": ({"customer"}, 1),
    "other_name": ({"customer"}, 1),
    "swapped_values": ({"customer", "city", "item"}, 2),
    "missing_field": (set(KEYS), 1),
    "quantity_as_text": ({"quantity"}, 1),
}


def read(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (ORDERS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def train() -> list[dict[str, Any]]:
    return read("preference_train")


@pytest.fixture(scope="module")
def held_out() -> list[dict[str, Any]]:
    return read("preference_eval")


def test_counts_and_columns(train: list[dict[str, Any]], held_out: list[dict[str, Any]]) -> None:
    assert (len(train), len(held_out)) == (800, 200)
    assert all(list(row) == ["prompt", "chosen", "rejected", "wrong", "unseen"] for row in train + held_out)
    assert not any(row["unseen"] for row in train)
    assert sum(row["unseen"] for row in held_out) == 80


def test_no_prompt_stands_in_two_places(train: list[dict[str, Any]], held_out: list[dict[str, Any]]) -> None:
    prompts = [row["prompt"] for row in [*train, *held_out, *read("train"), *read("eval")]]
    assert len(set(prompts)) == len(prompts) == 3200


def test_rejected_answers_are_json_that_is_wrong_in_one_thing(
    train: list[dict[str, Any]], held_out: list[dict[str, Any]]
) -> None:
    for row in train + held_out:
        right, wrong = json.loads(row["chosen"]), json.loads(row["rejected"])
        assert list(right) == KEYS
        assert all(right[key] in row["prompt"] for key in ("customer", "item", "city"))
        fields, number = CHANGED[row["wrong"]]
        differing = {key for key in KEYS if wrong.get(key) != right[key]}
        assert differing <= fields, row
        assert len(differing) == number, row
        assert (len(wrong) == len(KEYS) - 1) == (row["wrong"] == "missing_field")
        assert list(wrong) == [key for key in KEYS if key in wrong]
        assert json.dumps(wrong, ensure_ascii=False, separators=(",", ":")) == row["rejected"]


def test_every_kind_of_mistake_is_about_equally_frequent(
    train: list[dict[str, Any]], held_out: list[dict[str, Any]]
) -> None:
    assert Counter(row["wrong"] for row in train) == dict.fromkeys(CHANGED, 80)
    assert Counter(row["wrong"] for row in held_out) == dict.fromkeys(CHANGED, 20)


def test_unseen_values_occur_in_no_training_row(train: list[dict[str, Any]], held_out: list[dict[str, Any]]) -> None:
    trained = " ".join(row["prompt"] + row["chosen"] for row in train)
    for row in held_out:
        right = json.loads(row["chosen"])
        if row["unseen"]:
            assert not any(value in trained for key in ("customer", "item", "city") for value in right[key].split(","))


def test_script_writes_these_files_again() -> None:
    check = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "build_orders_preference.py"), "--check"],
        capture_output=True,
        text=True,
    )
    assert check.returncode == 0, check.stdout + check.stderr
