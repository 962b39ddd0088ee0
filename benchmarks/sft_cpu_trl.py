"""One run of TRL's SFTTrainer for `sft_cpu.py`: same model, tokens, order and objective; prints one JSON line.

Usage: python benchmarks/sft_cpu_trl.py FOLDER STEPS packing|padded [checkpointing]
"""

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import SFTConfig, SFTTrainer


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


class CountingTrainer(SFTTrainer):
    """Counts the real tokens of every batch that it trains on."""

    num_tokens: list[int]

    def training_step(self, model, inputs, num_items_in_batch=None):  # type: ignore[no-untyped-def]
        if "attention_mask" in inputs:
            self.num_tokens.append(int(inputs["attention_mask"].sum()))
        else:
            self.num_tokens.append(inputs["input_ids"].numel())
        return super().training_step(model, inputs, num_items_in_batch)


def main(folder: Path, steps: int, choice: Sequence[str]) -> None:
    settings = json.loads((folder / "settings.json").read_text())
    torch.set_num_threads(settings["threads"])
    rows = Dataset.from_json(str(folder / "tokens.jsonl"), cache_dir=str(folder / "cache"))
    watch = Stopwatch()
    config = SFTConfig(
        output_dir=str(folder / "trl"),
        use_cpu=True,
        bf16=False,
        per_device_train_batch_size=settings["batch_size"],
        gradient_checkpointing="checkpointing" in choice,
        completion_only_loss=True,
        max_length=settings["max_length"],
        packing="packing" in choice,
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
    trainer = CountingTrainer(
        model=AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32, attn_implementation="sdpa"),
        args=config,
        train_dataset=rows,
        processing_class=AutoTokenizer.from_pretrained(folder / "model"),
        callbacks=[watch],
    )
    trainer.num_tokens = []
    trainer.train()
    print(json.dumps({"seconds": watch.seconds, "tokens": trainer.num_tokens, "losses": watch.losses[:steps]}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
