"""One run of TRL's DPOTrainer for `preference_cpu.py`: same model, tokens, order and loss; prints one JSON line.

Usage: python benchmarks/preference_cpu_trl.py FOLDER STEPS [checkpointing] [precompute]
"""

from typing import Any

from in_turn_trl import TrlRun
from trl import DPOConfig, DPOTrainer


class TokensTrainer(DPOTrainer):
    """Takes rows that are tokens already."""

    def _prepare_dataset(self, dataset: Any, *args: object, **kwargs: object) -> Any:
        return dataset


def main() -> None:
    run = TrlRun.asked()
    config = DPOConfig(
        beta=run.settings["beta"],
        precompute_ref_log_probs="precompute" in run.choices,
        precompute_ref_batch_size=run.settings["batch_size"],
        **run.config_arguments(),
    )
    TokensTrainer(args=config, **run.trainer_arguments()).train()
    run.tell()


if __name__ == "__main__":
    main()
