"""The chain that ships runs from its first stage to its table, shortened and on a small model."""

import json
from pathlib import Path

from run_ftk import start_ftk

RECIPES = Path(__file__).parents[2] / "recipes"
SHORT = ("training.batch_size=4", "evaluation.max_rows=2", "evaluation.max_new_tokens=4", "evaluation.metrics=[]")


def test_the_code_assistant_is_trained_stage_by_stage(model_folder: Path, tmp_path: Path) -> None:
    words = [
        *SHORT,
        "--model",
        model_folder,
        "--output",
        tmp_path / "chain",
        "stages.sft.data.train.0.split=train[:16]",
    ]
    for stage in ("cpt", "infill", "sft"):
        words += [f"stages.{stage}.training.max_steps=2", f"stages.{stage}.evaluation.max_rows=2"]
    for stage in ("cpt", "infill"):
        words += [f"stages.{stage}.data.train.0.glob=json/*.py", f"stages.{stage}.data.eval.0.glob=json/*.py"]
        words += [f"stages.{stage}.data.{part}.0.split=train[:60%]" for part in ("train", "eval")]
    words += ["stages.infill.evaluation.max_new_tokens=4", "stages.sft.evaluation.max_new_tokens=4"]
    process = start_ftk("train", RECIPES / "code_assistant.yaml", *words, "--json")
    out, errors = process.communicate(timeout=500)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    answer = json.loads(out.splitlines()[-1])
    ids = ["cpt", "infill", "sft"]
    assert [(stage["id"], stage["status"]) for stage in answer["stages"]] == [(id, "trained") for id in ids]
    assert [stage["run"]["steps"] for stage in answer["stages"]] == [2, 2, 2]
    measured = {(one["evaluated_on"], one["model"]): one["metrics"] for one in answer["comparison"]}
    assert set(measured) == {(on, model) for on in ids for model in ("base", *ids)}
    assert all(metrics["loss"] > 0 for metrics in measured.values())
    assert Path(answer["model_folder"], "README.md").exists()
