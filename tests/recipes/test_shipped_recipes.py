"""Every recipe that ships trains, is measured and leaves a model: on a small model and local rows, by overrides."""

import json
from pathlib import Path

import pytest
from run_ftk import Ftk

RECIPES = Path(__file__).parents[2] / "recipes"
SHARED = Path(__file__).parents[3] / "shared" / "data"
SHORT = (
    "training.max_steps=2",
    "training.batch_size=4",
    "data.max_length=256",
    "evaluation.max_rows=2",
    "evaluation.max_new_tokens=4",
)
# Under fsdp in the recipe one process is one shard; two are tested in tests/runs/test_processes.py.
OVERRIDES = {
    "quickstart": ["data.train=ftk://orders/train", "evaluation.shots=0"],
    "sft_lora": ["training.precision=fp32"],
    "sft_qlora": ["training.precision=fp32"],
    "sft_full": ["training.precision=fp32"],
    "sft_gsm8k": ["data.train.0.split=train", "data.eval.0.split=train"],
}


@pytest.fixture
def local_rows(tmp_path: Path) -> Path:
    """Rows in the format of GSM8K, with which all recipes can do."""
    path = tmp_path / "rows.jsonl"
    rows = [{"question": f"What is {n} plus {n}?", "answer": f"{n}+{n}={2 * n}.\n#### {2 * n}"} for n in range(12)]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def test_each_recipe_has_its_overrides() -> None:
    assert {path.stem for path in RECIPES.glob("*.yaml")} == set(OVERRIDES)


@pytest.mark.parametrize("name", sorted(OVERRIDES))
def test_recipe_runs(name: str, model_folder: Path, local_rows: Path, tmp_path: Path, ftk_json: Ftk) -> None:
    words = [*SHORT, *OVERRIDES[name], f"model.id={model_folder}", f"output.folder={tmp_path / 'run'}"]
    if name == "sft_gsm8k":
        words += [
            f"data.{part}.0.{key}" for part in ("train", "eval") for key in (f"source={local_rows}", "subset=null")
        ]
    elif name != "quickstart":
        words += [f"data.train={local_rows}", f"data.eval={local_rows}"]
    answer = ftk_json("train", RECIPES / f"{name}.yaml", *words)
    assert answer["exit_code"] == 0, answer["stderr"]
    assert answer["steps"] == 2
    assert Path(answer["model_folder"], "README.md").exists()
    assert {"loss", "perplexity", "token_accuracy", "general_loss"} <= set(answer["evaluation"]["after"])


@pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/data is not there")
def test_gsm8k_itself_trains_from_a_file(tmp_path: Path, ftk_json: Ftk) -> None:
    files = {"train": SHARED / "gsm8k_train.jsonl", "eval": SHARED / "gsm8k_eval.jsonl"}
    words = [f"data.{part}.0.source={file}" for part, file in files.items()]
    words += ["data.train.0.subset=null", "data.eval.0.subset=null"]
    words += ["data.train.0.split=train[:64]", "data.eval.0.split=train[:16]"]
    steps = ["training.max_steps=8", "training.batch_size=8", "evaluation.max_rows=2", "evaluation.max_new_tokens=8"]
    answer = ftk_json("train", RECIPES / "sft_gsm8k.yaml", *words, *steps, f"output.folder={tmp_path / 'run'}")
    assert answer["exit_code"] == 0, answer["stderr"]
    assert answer["evaluation"]["after"]["loss"] < answer["evaluation"]["before"]["loss"]
