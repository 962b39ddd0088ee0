"""What runs of TRL's trainers have in common: settings, model, rows, and the time and loss of each step.

A script has a trainer and its own settings, and is used as: SCRIPT FOLDER STEPS [CHOICE ...]
"""

import json
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback


class Stopwatch(TrainerCallback):
    """The time at the end of each optimizer step, and the loss that TRL logs for it."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.losses: list[float] = []

    def on_step_end(self, *args: object, **kwargs: object) -> None:
        self.seconds.append(time.perf_counter())

    def on_log(self, *args: object, logs: dict[str, float], **kwargs: object) -> None:
        if "loss" in logs:
            self.losses.append(logs["loss"])


@dataclass(frozen=True)
class TrlRun:
    """One run, as the command line asks for it."""

    folder: Path
    steps: int
    choices: tuple[str, ...]
    settings: dict[str, Any]
    """As `in_turn_inputs.py` wrote them."""
    watch: Stopwatch = field(default_factory=Stopwatch)

    @classmethod
    def asked(cls) -> "TrlRun":
        """Reads the command line, and takes as many threads as ftk does."""
        folder = Path(sys.argv[1])
        run = cls(folder, int(sys.argv[2]), tuple(sys.argv[3:]), json.loads((folder / "settings.json").read_text()))
        torch.set_num_threads(run.settings["threads"])
        return run

    def config_arguments(self) -> dict[str, Any]:
        """Of any of TRL's configs: what ftk does by the recipe; `checkpointing` is TRL's own default."""
        return {
            "output_dir": str(self.folder / "trl"),
            "use_cpu": True,
            "bf16": False,
            "per_device_train_batch_size": self.settings["batch_size"],
            "gradient_checkpointing": "checkpointing" in self.choices,
            "max_length": self.settings["max_length"],
            "max_steps": self.steps,
            "learning_rate": self.settings["learning_rate"],
            "lr_scheduler_type": "constant",
            "weight_decay": 0.0,
            "max_grad_norm": 1.0,
            "logging_steps": 1,
            "logging_first_step": True,
            "save_strategy": "no",
            "report_to": "none",
            "train_sampling_strategy": "sequential",
            "disable_tqdm": True,
            "seed": self.settings["seed"],
        }

    def trainer_arguments(self) -> dict[str, Any]:
        """Of any of TRL's trainers, its config apart."""
        path = self.folder / "model"
        return {
            "model": AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="sdpa"),
            "train_dataset": Dataset.from_json(str(self.folder / "tokens.jsonl"), cache_dir=str(self.folder / "cache")),
            "processing_class": AutoTokenizer.from_pretrained(path),
            "callbacks": [self.watch],
        }

    def tell(self, **more: object) -> None:
        """The answer as one JSON line, the last of standard output."""
        print(json.dumps({"seconds": self.watch.seconds, "losses": self.watch.losses[: self.steps], **more}))
