"""ftk against TRL on two CPU cores: the same model, rows, order, seed, learning rate and objective, in turn.

    .venv/bin/python benchmarks/sft_cpu.py                  speed and losses, at a vocabulary of 8,192
    .venv/bin/python benchmarks/sft_cpu.py --vocabulary 128256 --steps 6 --rounds 1       peak memory

Speed is real tokens a second after the first steps, start-up apart; memory is the operating system's peak of the whole
process. TRL runs as it comes, which is with activation checkpointing, and with that off beside it, which is faster and
takes more memory; the ratios are to TRL as it comes. Needs the development extra.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

WARMUP_STEPS = 3
PACKED_STEPS, PACKED_WARMUP_STEPS = 3, 1
"""TRL counts packed rows in a batch, of `max_length` tokens each, so a few steps have as many tokens."""
CONTENDERS: dict[str, Mapping[str, object] | tuple[str, ...]] = {
    "ftk padded": {"task.prompt_loss_weight": 0, "data.packing": "false"},
    "ftk packed": {"task.prompt_loss_weight": 0, "data.packing": "true"},
    "ftk default": {"task.prompt_loss_weight": 0.1, "data.packing": "false"},
    "trl padded": ("padded", "checkpointing"),
    "trl packing": ("packing", "checkpointing"),
    "trl padded, no checkpointing": ("padded",),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=23, help="optimizer steps a run")
    parser.add_argument("--vocabulary", type=int, default=8192)
    parser.add_argument("--data", default="ftk://orders/train", help="rows that both train on")
    parser.add_argument("--max-length", type=int, default=512)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder, arguments)
        runs: dict[str, list[dict[str, Any]]] = {contender: [] for contender in CONTENDERS}
        for round_number in range(1, arguments.rounds + 1):
            for contender in CONTENDERS:
                result = run(contender, folder, arguments)
                runs[contender].append(result)
                print(
                    f"round {round_number}  {contender:<29} {result['tokens_per_second']:8.0f} tokens/s  "
                    f"peak {result['peak_bytes'] / 1e9:5.2f} GB",
                    flush=True,
                )
    report(runs)


def prepare(folder: Path, arguments: argparse.Namespace) -> None:
    """A random model with ftk://tiny's tokenizer, and the rows as tokens in the order in which ftk draws them."""
    subprocess.run(
        [
            sys.executable,
            str(Path(__file__).with_name("sft_cpu_inputs.py")),
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
    """One run in a process of its own: losses by step, tokens a second, and peak memory in bytes."""
    choice = CONTENDERS[contender]
    if isinstance(choice, tuple):
        is_padded = "padded" in choice
        steps = arguments.steps if is_padded else PACKED_STEPS
        warmup_steps = WARMUP_STEPS if is_padded else PACKED_WARMUP_STEPS
        command = [str(Path(__file__).with_name("sft_cpu_trl.py")), str(folder), str(steps), *choice]
        output, peak_bytes = measure([sys.executable, *command], folder)
        answer = json.loads(output.splitlines()[-1])
        seconds = answer["seconds"][-1] - answer["seconds"][warmup_steps - 1]
        rate = sum(answer["tokens"][warmup_steps:]) / seconds
        return {"losses": answer["losses"], "tokens_per_second": rate, "peak_bytes": peak_bytes}
    overrides = [f"{path}={value}" for path, value in choice.items()]
    command = ["-m", "ftk", "train", str(folder / "recipe.yaml"), *overrides, "--fresh", "--json"]
    output, peak_bytes = measure([sys.executable, *command], folder)
    run_folder = Path(json.loads(output.splitlines()[-1])["run_folder"])
    steps = [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text().splitlines()]
    counts = [step["tokens"] - before["tokens"] for before, step in zip([{"tokens": 0}, *steps], steps, strict=False)]
    timed = list(zip(counts, steps, strict=True))[WARMUP_STEPS:]
    seconds = sum(count / step["tokens_per_second"] for count, step in timed)
    rate = sum(count for count, _ in timed) / seconds
    return {"losses": [step["loss"] for step in steps], "tokens_per_second": rate, "peak_bytes": peak_bytes}


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
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        )
        assert process.stdout is not None
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        sys.exit(f"{' '.join(command)} failed:\n{log.read_text()[-4000:]}")
    return output, usage.ru_maxrss * 1024


def report(runs: dict[str, list[dict[str, Any]]]) -> None:
    """The table of medians, the ratios to the better of TRL's settings, and how far the losses agree."""
    rates = {
        name: statistics.median(result["tokens_per_second"] for result in results) for name, results in runs.items()
    }
    peaks = {name: statistics.median(result["peak_bytes"] for result in results) for name, results in runs.items()}
    best_trl = max(rates["trl padded"], rates["trl packing"])
    least_trl = min(peaks["trl padded"], peaks["trl packing"])
    print("\n| run | tokens/s, median | / better TRL | peak memory | / lesser TRL |")
    print("| --- | --- | --- | --- | --- |")
    for name in runs:
        print(
            f"| {name} | {rates[name]:,.0f} | {rates[name] / best_trl:.2f} | {peaks[name] / 1e9:.2f} GB "
            f"| {peaks[name] / least_trl:.2f} |"
        )
    pairs = list(zip(runs["ftk padded"][0]["losses"][:20], runs["trl padded"][0]["losses"][:20], strict=False))
    differences = [abs(ours - theirs) / abs(theirs) for ours, theirs in pairs]
    print(f"\nlosses of the first {len(differences)} steps: largest relative difference {max(differences):.1e}")


if __name__ == "__main__":
    main()
