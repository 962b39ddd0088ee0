"""ftk's DPO against TRL's on two CPU cores: the same model, pairs, order, seed, learning rate and loss, in turn.

    .venv/bin/python benchmarks/preference_cpu.py                  speed and losses, at a vocabulary of 8,192
    .venv/bin/python benchmarks/preference_cpu.py --vocabulary 128256 --steps 6 --rounds 1       peak memory

Speed is pairs a second after the first steps, start-up and the reference pass of either apart; memory is the operating
system's peak of the whole process. TRL keeps a second copy of the model for the reference unless log-probabilities are
computed beforehand, which is tried too; it runs with activation checkpointing, its default, and without, its faster
setting. Needs the development extra.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

WARMUP_STEPS = 3
CONTENDERS = {
    "ftk": {},
    "ftk packed": {"data.packing": "true"},
    "ftk whole batch": {"training.micro_batch_size": "8"},
    "ftk checkpointing": {"training.activation_checkpointing": "true"},
    "trl default": ["checkpointing"],
    "trl": [],
    "trl precomputed": ["precompute"],
}
"""Overrides of the recipe, or what TRL is told. ftk as it comes splits a step's batch by tokens, which changes memory
and speed and not the update; TRL takes the batch that it is given, as ftk does with `whole batch`."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=23, help="optimizer steps a run")
    parser.add_argument("--vocabulary", type=int, default=8192)
    parser.add_argument("--data", default="ftk://orders/preference_train", help="pairs that both train on")
    parser.add_argument("--max-length", type=int, default=512)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--only", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder, arguments)
        runs: dict[str, list[dict[str, Any]]] = {contender: [] for contender in arguments.only}
        for round_number in range(1, arguments.rounds + 1):
            for contender in arguments.only:
                result = run(contender, folder, arguments)
                runs[contender].append(result)
                print(
                    f"round {round_number}  {contender:<17} {result['pairs_per_second']:8.2f} pairs/s  "
                    f"peak {result['peak_bytes'] / 1e9:5.2f} GB",
                    flush=True,
                )
    report(runs)


def prepare(folder: Path, arguments: argparse.Namespace) -> None:
    """A random model with ftk://tiny's tokenizer, and the pairs as tokens in the order in which ftk draws them."""
    subprocess.run(
        [
            sys.executable,
            str(Path(__file__).with_name("preference_cpu_inputs.py")),
            str(folder),
            *("--vocabulary", str(arguments.vocabulary)),
            *("--data", arguments.data),
            *("--max-length", str(arguments.max_length)),
            *("--steps", str(arguments.steps)),
            *("--threads", str(arguments.threads)),
        ],
        check=True,
    )


def run(contender: str, folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """One run in a process of its own: losses by step, pairs a second, and peak memory in bytes."""
    choice = CONTENDERS[contender]
    batch_size = json.loads((folder / "settings.json").read_text())["batch_size"]
    if isinstance(choice, list):
        command = [str(Path(__file__).with_name("preference_cpu_trl.py")), str(folder), str(arguments.steps), *choice]
        output, peak_bytes = measure([sys.executable, *command], folder)
        answer = json.loads(output.splitlines()[-1])
        seconds = answer["seconds"][-1] - answer["seconds"][WARMUP_STEPS - 1]
        losses = answer["losses"]
    else:
        overrides = [f"{path}={value}" for path, value in choice.items()]
        command = ["-m", "ftk", "train", str(folder / "recipe.yaml"), *overrides, "--fresh", "--json"]
        output, peak_bytes = measure([sys.executable, *command], folder)
        run_folder = Path(json.loads(output.splitlines()[-1])["run_folder"])
        steps = [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text().splitlines()]
        losses = [step["loss"] for step in steps]
        counts = [steps[0]["tokens"], *(step["tokens"] - before["tokens"] for before, step in pairwise(steps))]
        timed = list(zip(counts, steps, strict=True))[WARMUP_STEPS:]
        seconds = sum(count / step["tokens_per_second"] for count, step in timed)
    num_pairs = batch_size * (arguments.steps - WARMUP_STEPS)
    return {"losses": losses, "pairs_per_second": num_pairs / seconds, "peak_bytes": peak_bytes}


def measure(command: list[str], folder: Path) -> tuple[str, int]:
    """Standard output of a process, and its peak resident memory in bytes as the operating system counted it."""
    log = folder / "log.txt"
    threads = json.loads((folder / "settings.json").read_text())["threads"]
    with log.open("w") as errors:
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            # A cache of its own, so that the reference pass is always part of the run, as it is of TRL's.
            env={**os.environ, "OMP_NUM_THREADS": str(threads), "FTK_CACHE": tempfile.mkdtemp(dir=folder)},
        )
        assert process.stdout is not None
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        sys.exit(f"{' '.join(command)} failed:\n{log.read_text()[-4000:]}")
    return output, usage.ru_maxrss * 1024


def report(runs: dict[str, list[dict[str, Any]]]) -> None:
    """The table of medians, the ratios to each of TRL's settings, and how far the losses agree."""
    rates = {name: statistics.median(one["pairs_per_second"] for one in results) for name, results in runs.items()}
    peaks = {name: statistics.median(one["peak_bytes"] for one in results) for name, results in runs.items()}
    peers = [name for name in runs if name.startswith("trl")]
    columns = [f"| speed / {peer} | memory / {peer} " for peer in peers]
    print(f"\n| run | pairs/s, median | peak memory {''.join(columns)}|")
    print(f"| --- | --- | --- {'| --- | --- ' * len(peers)}|")
    for name in runs:
        ratios = "".join(f"| {rates[name] / rates[peer]:.2f} | {peaks[name] / peaks[peer]:.2f} " for peer in peers)
        print(f"| {name} | {rates[name]:,.2f} | {peaks[name] / 1e9:.2f} GB {ratios}|")
    for name in runs:
        for peer in peers:
            if name not in peers:
                pairs = list(zip(runs[name][0]["losses"][:20], runs[peer][0]["losses"][:20], strict=False))
                worst = max(abs(ours - theirs) / abs(theirs) for ours, theirs in pairs)
                print(
                    f"losses of the first {len(pairs)} steps, {name} and {peer}: differ by at most {worst:.1e} of them"
                )


if __name__ == "__main__":
    main()
