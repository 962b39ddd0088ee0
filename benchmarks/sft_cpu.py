"""ftk against TRL on two CPU cores: the same model, rows, order, seed, learning rate and objective, in turn.

    .venv/bin/python benchmarks/sft_cpu.py                  speed and losses, at a vocabulary of 8,192
    .venv/bin/python benchmarks/sft_cpu.py --vocabulary 128256 --steps 6 --rounds 1       peak memory

Speed is real tokens a second after the first steps, start-up apart; memory is the operating system's peak of the whole
process. TRL runs as it comes, which is with activation checkpointing, and with that off beside it, which is faster and
takes more memory; the ratios are to TRL as it comes. Needs the development extra.
"""

from functools import partial
from pathlib import Path

from in_turn import (
    WARMUP_STEPS,
    Contenders,
    Result,
    Results,
    ftk_run,
    in_turn,
    largest_difference,
    medians,
    options,
    peer_run,
)

PACKED_STEPS, PACKED_WARMUP_STEPS = 3, 1
"""TRL counts packed rows in a batch, of `max_length` tokens each, so a few steps have as many tokens."""
CONTENDERS: Contenders = {
    "ftk padded": {"task.prompt_loss_weight": 0, "data.packing": "false"},
    "ftk packed": {"task.prompt_loss_weight": 0, "data.packing": "true"},
    "ftk default": {"task.prompt_loss_weight": 0.1, "data.packing": "false"},
    "trl padded": ("padded", "checkpointing"),
    "trl packing": ("packing", "checkpointing"),
    "trl padded, no checkpointing": ("padded",),
}


def main() -> None:
    arguments = options(__doc__, data="ftk://orders/train", unit="rows").parse_args()
    results = in_turn(
        list(CONTENDERS),
        partial(result_of, steps=arguments.steps),
        inputs=Path(__file__).with_name("sft_cpu_inputs.py"),
        arguments=arguments,
        shown=lambda contender, rate: f"{contender:<29} {rate:8.0f} tokens/s",
    )
    report(results)


def result_of(contender: str, folder: Path, *, steps: int) -> Result:
    """Losses by step, real tokens a second, and peak memory in bytes."""
    choice, warmup_steps = CONTENDERS[contender], WARMUP_STEPS
    if isinstance(choice, tuple):
        if "packing" in choice:
            steps, warmup_steps = PACKED_STEPS, PACKED_WARMUP_STEPS
        run = peer_run(folder, Path(__file__).with_name("sft_cpu_trl.py"), steps=steps, choices=choice)
    else:
        run = ftk_run(folder, choice)
    rate = sum(run.tokens[warmup_steps:]) / run.seconds_after(warmup_steps)
    return Result(run.losses, rate, run.peak_bytes)


def report(results: Results) -> None:
    """The table of medians, the ratios to the better of TRL's settings, and how far the losses agree."""
    rates, peaks = medians(results)
    best_trl = max(rates["trl padded"], rates["trl packing"])
    least_trl = min(peaks["trl padded"], peaks["trl packing"])
    print("\n| run | tokens/s, median | / better TRL | peak memory | / lesser TRL |")
    print("| --- | --- | --- | --- | --- |")
    for name in results:
        print(
            f"| {name} | {rates[name]:,.0f} | {rates[name] / best_trl:.2f} | {peaks[name] / 1e9:.2f} GB "
            f"| {peaks[name] / least_trl:.2f} |"
        )
    num_steps, worst = largest_difference(results["ftk padded"], results["trl padded"])
    print(f"\nlosses of the first {num_steps} steps: largest relative difference {worst:.1e}")


if __name__ == "__main__":
    main()
