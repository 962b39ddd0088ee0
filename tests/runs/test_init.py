"""A recipe that `ftk init` wrote validates, trains, and its run compares the memory expected with that measured."""

import json
import shutil
from pathlib import Path

import pytest
from run_ftk import Ftk

from ftk.data.source import SHIPPED


@pytest.mark.parametrize("data", ["ftk://orders/train", "ftk://orders/preference_train"])
def test_what_init_writes_trains(ftk_json: Ftk, tmp_path: Path, data: str):
    rows, recipe = tmp_path / "rows.jsonl", tmp_path / "recipe.yaml"
    shutil.copy(SHIPPED[data], rows)
    begun = ftk_json("init", rows, "--model", "ftk://tiny", "--out", recipe)
    assert begun["exit_code"] == 0, begun
    assert begun["tokens_counted"]
    assert ftk_json("recipe", "validate", recipe) == {"valid": True, "advice": [], "exit_code": 0, "stderr": "ok\n"}
    few = ("data.train.0.split=train[:16]", "data.eval.0.split=train[16:20]", "training.max_steps=1")
    also = ("evaluation.metrics=[]", "evaluation.max_rows=null", f"output.folder={tmp_path / 'run'}")
    answer = ftk_json("train", recipe, *few, *also)
    assert answer["exit_code"] == 0, answer
    assert " expected, " in answer["stderr"]
    memory = json.loads((tmp_path / "run" / "memory.json").read_text())
    assert memory["predicted_bytes"] > 0
    assert memory["free_before_bytes"] > memory["predicted_bytes"]
    assert memory["estimate"]["method"] == "analytic"


def test_train_refuses_what_cannot_fit(ftk_json: Ftk, tmp_path: Path, recipe_file: Path, monkeypatch):
    """Before anything is written; --force goes on."""
    monkeypatch.setattr("ftk.runs.memory_guard.free_bytes", lambda device: 50_000)
    answer = ftk_json("train", recipe_file)
    assert answer["exit_code"] == 3
    assert "the run cannot fit" in answer["error"]["message"]
    assert not (tmp_path / "run").exists()
    answer = ftk_json("train", recipe_file, "--force", "training.max_steps=1", "evaluation.before=false")
    assert answer["exit_code"] == 0, answer
    assert (tmp_path / "run" / "memory.json").exists()


def test_eight_bit_states_are_checked_before_anything_is_written(
    ftk_json: Ftk, tmp_path: Path, recipe_file: Path, monkeypatch
):
    from bitsandbytes.optim import AdamW8bit

    def no_kernel(self: object, closure: object = None) -> None:
        raise NotImplementedError("Could not run 'bitsandbytes::optimizer_update_8bit_blockwise'")

    monkeypatch.setattr(AdamW8bit, "step", no_kernel)
    answer = ftk_json("train", recipe_file, "training.optimizer=adamw_8bit")
    assert answer["exit_code"] == 3
    assert "adamw_8bit does not run on this device" in answer["error"]["message"]
    assert not (tmp_path / "run").exists()
