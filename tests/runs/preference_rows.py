"""Rows of preference data for tests of runs, and a recipe that learns from them."""

import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

NUM_PAIRS = 12
PAIRS = [
    {
        "prompt": f"How many are {n} and {n * n}?{' Please.' * (n % 4)}",
        "chosen": f"{n + n * n}.",
        "rejected": f"It may be {n + n * n + 1}{', or so' * (n % 3)}.",
    }
    for n in range(NUM_PAIRS)
]
JUDGED = [
    {"prompt": pair["prompt"], "completion": pair["chosen" if n % 3 else "rejected"], "label": bool(n % 3)}
    for n, pair in enumerate(PAIRS)
]


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def without_dropout(model_folder: Path, folder: Path) -> Path:
    """The model, whose attention does not drop out: its loss at the first step is then that of evaluation mode."""
    shutil.copytree(model_folder, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "attention_dropout": 0.0}))
    return folder


def write_recipe(path: Path, *, model: Path, rows: Path, output: Path) -> Path:
    """Two epochs of three steps, a checkpoint after each step."""
    path.write_text(
        f"""\
model: {model}
task: preference
data: {{train: {rows}, eval: {rows}, max_length: 128}}
tuning: full
training: {{epochs: 2, batch_size: 4, micro_batch_size: 2, learning_rate: 1.0e-3, precision: fp32, schedule: constant}}
evaluation: {{every: 1 epoch}}
checkpoint: {{every: 1, keep: 10}}
output: {output}
"""
    )
    return path


def steps_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


ONE_STEP = ("training.max_steps=1", "evaluation.every=null", "evaluation.before=false", "checkpoint.every=null")


def parts_in(cache: Path) -> list[Path]:
    return sorted(cache.glob("reference-*/part-*.safetensors"))


def model_of(answer: dict[str, Any]) -> dict[str, torch.Tensor]:
    return load_file(Path(answer["model_folder"]) / "model.safetensors")
