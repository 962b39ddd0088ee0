"""ftk's DPO against TRL's on two CPU cores: the same model, pairs, order, seed, learning rate and loss, in turn.

    .venv/bin/python benchmarks/preference_cpu.py                  speed and losses, at a vocabulary of 8,192
    .venv/bin/python benchmarks/preference_cpu.py --vocabulary 128256 --steps 6 --rounds 1       peak memory

Speed is pairs a second after the first steps, start-up and the reference pass of either apart; memory is the operating
system's peak of the whole process. TRL keeps a second copy of the model for the reference unless log-probabilities are
computed beforehand, which is tried too; it runs with activation checkpointing, its default, and without, its faster
setting. Needs the development extra.
"""

from functools import partial
from pathlib import Path

from in_turn import (
    BATCH_SIZE,
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

CONTENDERS: Contenders = {
    "ftk": {},
    "ftk packed": {"data.packing": "true"},
    "ftk whole batch": {"training.micro_batch_size": "8"},
    "ftk checkpointing": {"training.activation_checkpointing": "true"},
    "trl default": ("checkpointing",),
    "trl": (),
    "trl precomputed": ("precompute",),
}
"""Overrides of the recipe, or what TRL is told. ftk as it comes splits a step's batch by tokens, which changes memory
and speed and not the update; TRL takes the batch that it is given, as ftk does with `whole batch`."""


def main() -> None:
    parser = options(__doc__, data="ftk://orders/preference_train", unit="pairs")
    parser.add_argument("--only", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    arguments = parser.parse_args()
    results = in_turn(
        arguments.only,
        partial(result_of, steps=arguments.steps),
        inputs=Path(__file__).with_name("preference_cpu_inputs.py"),
        arguments=arguments,
        shown=lambda contender, rate: f"{contender:<17} {rate:8.2f} pairs/s",
    )
    report(results)


def result_of(contender: str, folder: Path, *, steps: int) -> Result:
    """Losses by step, pairs a second, and peak memory in bytes."""
    choice = CONTENDERS[contender]
    if isinstance(choice, tuple):
        run = peer_run(folder, Path(__file__).with_name("preference_cpu_trl.py"), steps=steps, choices=choice)
    else:
        run = ftk_run(folder, choice)
    num_pairs = BATCH_SIZE * (steps - WARMUP_STEPS)
    return Result(run.losses, num_pairs / run.seconds_after(WARMUP_STEPS), run.peak_bytes)


def report(results: Results) -> None:
    """The table of medians, the ratios to each of TRL's settings, and how far the losses agree."""
    rates, peaks = medians(results)
    peers = [name for name in results if name.startswith("trl")]
    columns = [f"| speed / {peer} | memory / {peer} " for peer in peers]
    print(f"\n| run | pairs/s, median | peak memory {''.join(columns)}|")
    print(f"| --- | --- | --- {'| --- | --- ' * len(peers)}|")
    for name in results:
        ratios = "".join(f"| {rates[name] / rates[peer]:.2f} | {peaks[name] / peaks[peer]:.2f} " for peer in peers)
        print(f"| {name} | {rates[name]:,.2f} | {peaks[name] / 1e9:.2f} GB {ratios}|")
    for name in results:
        for peer in peers:
            if name not in peers:
                num_steps, worst = largest_difference(results[name], results[peer])
                print(
                    f"losses of the first {num_steps} steps, {name} and {peer}: differ by at most {worst:.1e} of them"
                )


if __name__ == "__main__":
    main()
