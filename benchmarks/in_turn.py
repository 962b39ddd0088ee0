"""ftk and a peer in turn on the same inputs: a run a process, its speed after the first steps, its peak memory.

A benchmark has its contenders, `X_inputs.py` beside it that writes what both train on, and `X_trl.py` for the peer.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path

BATCH_SIZE = 8
WARMUP_STEPS = 3
NUM_COMPARED = 20
"""First steps whose losses are compared."""

INPUT_OPTIONS = ("vocabulary", "data", "max-length", "steps", "threads")
"""What the script that writes the inputs is told."""

Contenders = Mapping[str, Mapping[str, object] | tuple[str, ...]]
"""By name: overrides of ftk's recipe, or what the peer's script is told."""


@dataclass(frozen=True)
class Run:
    """What one process did, by optimizer step."""

    losses: list[float]
    ends: list[float]
    """Seconds at the end of each step, from any one moment on."""
    tokens: list[int]
    """Real tokens of each step; empty where the peer does not count them."""
    peak_bytes: int

    def seconds_after(self, num_steps: int) -> float:
        """What the steps after the first `num_steps` took."""
        return self.ends[-1] - self.ends[num_steps - 1]


@dataclass(frozen=True)
class Result:
    """What of a run goes into the table."""

    losses: list[float]
    rate: float
    """Units a second after the first steps."""
    peak_bytes: int


Results = Mapping[str, Sequence[Result]]
"""By contender, a result for each round."""


def options(description: str | None, *, data: str, unit: str) -> argparse.ArgumentParser:
    """The options of such a benchmark; `data` are the rows that both train on, if not told otherwise."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=23, help="optimizer steps a run")
    parser.add_argument("--vocabulary", type=int, default=8192)
    parser.add_argument("--data", default=data, help=f"{unit} that both train on")
    parser.add_argument("--max-length", type=int, default=512)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    return parser


def in_turn(
    contenders: Sequence[str],
    result_of: Callable[[str, Path], Result],
    *,
    inputs: Path,
    arguments: argparse.Namespace,
    shown: Callable[[str, float], str],
) -> Results:
    """Every contender once a round, on inputs that the script `inputs` writes; a line is printed for each.

    Args:
        result_of: runs a contender on the inputs in a folder.
        shown: a contender's name and its rate, as the line gives them.
    """
    results: dict[str, list[Result]] = {contender: [] for contender in contenders}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        words = [f"--{key}={getattr(arguments, key.replace('-', '_'))}" for key in INPUT_OPTIONS]
        subprocess.run([sys.executable, str(inputs), str(folder), *words], check=True)
        for round_number in range(1, arguments.rounds + 1):
            for contender in contenders:
                result = result_of(contender, folder)
                results[contender].append(result)
                peak = f"peak {result.peak_bytes / 1e9:5.2f} GB"
                print(f"round {round_number}  {shown(contender, result.rate)}  {peak}", flush=True)
    return results


def ftk_run(folder: Path, overrides: Mapping[str, object]) -> Run:
    """`ftk train` of the recipe in `folder`."""
    words = [f"{path}={value}" for path, value in overrides.items()]
    command = ["-m", "ftk", "train", str(folder / "recipe.yaml"), *words, "--fresh", "--json"]
    output, peak_bytes = _measured(command, folder)
    run_folder = Path(json.loads(output.splitlines()[-1])["run_folder"])
    steps = [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text().splitlines()]
    tokens = [steps[0]["tokens"], *(step["tokens"] - before["tokens"] for before, step in pairwise(steps))]
    ends = accumulate(count / step["tokens_per_second"] for count, step in zip(tokens, steps, strict=True))
    return Run([step["loss"] for step in steps], list(ends), tokens, peak_bytes)


def peer_run(folder: Path, script: Path, *, steps: int, choices: Sequence[str]) -> Run:
    """The peer's script, which prints losses and times by step as its last line (`in_turn_trl.py`)."""
    output, peak_bytes = _measured([str(script), str(folder), str(steps), *choices], folder)
    answer = json.loads(output.splitlines()[-1])
    return Run(answer["losses"], answer["seconds"], answer.get("tokens", []), peak_bytes)


def _measured(words: list[str], folder: Path) -> tuple[str, int]:
    """Standard output of a Python process, and its peak resident memory in bytes as the operating system counted it."""
    log = folder / "log.txt"
    threads = json.loads((folder / "settings.json").read_text())["threads"]
    command = [sys.executable, *words]
    with log.open("w") as errors:
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            # A cache of its own, so that what ftk keeps between runs is part of every run, as it is of the peer's.
            env={**os.environ, "OMP_NUM_THREADS": str(threads), "FTK_CACHE": tempfile.mkdtemp(dir=folder)},
        )
        assert process.stdout is not None
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        sys.exit(f"{' '.join(command)} failed:\n{log.read_text()[-4000:]}")
    return output, usage.ru_maxrss * 1024


def medians(results: Results) -> tuple[dict[str, float], dict[str, float]]:
    """Rate and peak memory in bytes of each contender, over the rounds."""
    rates = {name: statistics.median(one.rate for one in rounds) for name, rounds in results.items()}
    peaks = {name: statistics.median(one.peak_bytes for one in rounds) for name, rounds in results.items()}
    return rates, peaks


def largest_difference(ours: Sequence[Result], theirs: Sequence[Result]) -> tuple[int, float]:
    """How many first steps of the first round both have, and by how much of the peer's a loss differs at most."""
    pairs = list(zip(ours[0].losses[:NUM_COMPARED], theirs[0].losses[:NUM_COMPARED], strict=False))
    return len(pairs), max(abs(one - other) / abs(other) for one, other in pairs)
