"""One run of TRL's DPOTrainer for `preference_cpu.py`: same model, tokens, order and loss; prints one JSON line.

Usage: python benchmarks/preference_cpu_trl.py FOLDER STEPS [checkpointing] [precompute]
"""

import json
import sys
import time
from collections.abc import Collection
from pathlib import Path

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import DPOConfig, DPOTrainer


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


class TokensTrainer(DPOTrainer):
    """Takes rows that are tokens already."""

    def _prepare_dataset(self, dataset, *args, **kwargs):  # type: ignore[no-untyped-def]
        return dataset


def main(folder: Path, steps: int, choices: Collection[str]) -> None:
    settings = json.loads((folder / "settings.json").read_text())
    torch.set_num_threads(settings["threads"])
    rows = Dataset.from_json(str(folder / "tokens.jsonl"), cache_dir=str(folder / "cache"))
    watch = Stopwatch()
    config = DPOConfig(
        output_dir=str(folder / "trl"),
        use_cpu=True,
        bf16=False,
        beta=settings["beta"],
        precompute_ref_log_probs="precompute" in choices,
        precompute_ref_batch_size=settings["batch_size"],
        per_device_train_batch_size=settings["batch_size"],
        gradient_checkpointing="checkpointing" in choices,
        max_length=settings["max_length"],
        max_steps=steps,
        learning_rate=settings["learning_rate"],
        lr_scheduler_type="constant",
        weight_decay=0.0,
        max_grad_norm=1.0,
        logging_steps=1,
        logging_first_step=True,
        save_strategy="no",
        report_to="none",
        train_sampling_strategy="sequential",
        disable_tqdm=True,
        seed=settings["seed"],
    )
    trainer = TokensTrainer(
        model=AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32, attn_implementation="sdpa"),
        args=config,
        train_dataset=rows,
        processing_class=AutoTokenizer.from_pretrained(folder / "model"),
        callbacks=[watch],
    )
    trainer.train()
    print(json.dumps({"seconds": watch.seconds, "losses": watch.losses[:steps]}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
