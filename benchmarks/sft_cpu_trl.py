"""One run of TRL's SFTTrainer for `sft_cpu.py`: same model, tokens, order and objective; prints one JSON line.

Usage: python benchmarks/sft_cpu_trl.py FOLDER STEPS packing|padded [checkpointing]
"""

from typing import Any

from in_turn_trl import TrlRun
from trl import SFTConfig, SFTTrainer


class CountingTrainer(SFTTrainer):
    """Counts the real tokens of every batch that it trains on."""

    num_tokens: list[int]

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Any:
        if "attention_mask" in inputs:
            self.num_tokens.append(int(inputs["attention_mask"].sum()))
        else:
            self.num_tokens.append(inputs["input_ids"].numel())
        return super().training_step(model, inputs, num_items_in_batch)


def main() -> None:
    run = TrlRun.asked()
    config = SFTConfig(completion_only_loss=True, packing="packing" in run.choices, **run.config_arguments())
    trainer = CountingTrainer(args=config, **run.trainer_arguments())
    trainer.num_tokens = []
    trainer.train()
    run.tell(tokens=trainer.num_tokens)


if __name__ == "__main__":
    main()
