"""Preference data that cannot teach is refused with its row, before anything is written."""

import json
from pathlib import Path
from typing import Any

import pytest
from run_ftk import Ftk

GOOD = {"prompt": "q", "chosen": "a", "rejected": "b"}
LABELLED = {"prompt": "q", "completion": "a", "label": True}


@pytest.mark.parametrize(
    ("loss", "row", "message"),
    [
        ("dpo", {**GOOD, "rejected": "a"}, "chosen and rejected are equal"),
        ("dpo", {**GOOD, "rejected": ""}, "rejected is empty"),
        ("dpo", {"prompt": "q", "chosen": "a"}, "loss: kto"),
        ("dpo", {**GOOD, "chosen": "a" * 400}, "more than max_length"),
        ("kto", {**GOOD, "rejected": "a"}, "chosen and rejected are equal"),
        ("kto", {**GOOD, "rejected": " "}, "rejected is empty"),
    ],
)
def test_a_broken_row_is_exit_code_2_and_leaves_nothing(
    loss: str, row: dict[str, Any], message: str, recipe_file: Path, tmp_path: Path, ftk_json: Ftk
) -> None:
    (tmp_path / "rows.jsonl").write_text(f"{json.dumps(GOOD)}\n{json.dumps(row)}\n")
    answer = ftk_json("train", recipe_file, f"task={{name: preference, loss: {loss}}}", "data.eval=null",
                      f"data.train={tmp_path / 'rows.jsonl'}", "evaluation.metrics=[]")  # fmt: skip
    assert (answer["exit_code"], answer["error"]["type"]) == (2, "DataError")
    assert message in answer["error"]["message"]
    assert answer["error"]["place"] == f"{tmp_path / 'rows.jsonl'}:2"
    assert not (tmp_path / "run").exists()


def test_labelled_rows_under_a_loss_of_pairs_name_kto(recipe_file: Path, tmp_path: Path, ftk_json: Ftk) -> None:
    (tmp_path / "rows.jsonl").write_text(f"{json.dumps(LABELLED)}\n")
    answer = ftk_json("train", recipe_file, "task=preference", f"data.train={tmp_path / 'rows.jsonl'}")
    assert (answer["exit_code"], answer["error"]["place"]) == (2, f"{tmp_path / 'rows.jsonl'}:1")
    assert "loss: kto" in answer["error"]["message"]
    assert not (tmp_path / "run").exists()
