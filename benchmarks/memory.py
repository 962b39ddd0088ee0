"""What `ftk estimate-memory` says against what a training step takes. Writes memory.md.

    python benchmarks/memory.py                    69 cells on the CPU
    python benchmarks/memory.py --only 0,7,12      some of them
    python benchmarks/memory.py --ask-again        what is said is asked anew; measured peaks are kept
    python benchmarks/memory.py --device cuda      shapes of 1B and 8B parameters on a GPU

Finished cells are kept in --lines and not repeated; the table is written once all of them are there. The last line of
a cell counts.

A cell is one shape of model under one choice of tuning, checkpointing, length, rows, optimizer and packing. Sixty are a
seeded choice from the product of all choices, in which every pair of choices occurs; they compute in float32. Six more
compute in bfloat16, on few tokens, as a CPU without instructions for it is slow, and three are LoRA over int8. Models
are small and random, with the proportions of the real ones.

Measured is the second step of the real parts of `ftk train`. On the CPU it is the peak of what the allocator has given
out, from the profiler's memory events; weights, which were there before the profiler, are counted by their sizes. On
CUDA it is `torch.cuda.max_memory_allocated`, with `max_memory_reserved` beside it.
"""

import argparse
import json
import logging
import os
import platform
import statistics
import tempfile
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import torch
from memory_cells import (
    GPU_SHAPES,
    SHAPES,
    Cell,
    batch_for,
    choose_cells,
    gpu_cells,
    recipe_for,
    save_config,
    save_model,
)
from memory_measure import measure_cpu, measure_cuda

from ftk.core.types import Batch
from ftk.memory.analytic import CONTEXT_BYTES, WORKSPACE_BYTES, training_peak
from ftk.memory.estimate import MemoryBytes
from ftk.recipe.schema import Recipe
from ftk.runs.estimate import question
from ftk.runs.simulate_step import simulate_step
from ftk.train.precision import Precision

OUTPUT = Path(__file__).with_suffix(".md")


@dataclass(frozen=True)
class Result:
    """Bytes of one cell, as measured and as said."""

    cell: Cell
    measured: int
    analytic: MemoryBytes
    simulated: MemoryBytes
    moment: str
    seconds: tuple[float, float]
    """Of the measurement and of the simulation."""
    reserved: int | None = None

    @property
    def errors(self) -> tuple[float, float]:
        """Of the analytic and of the simulated answer; below 0 where it says too little."""
        return (
            self.analytic.total / self.measured - 1,
            self.simulated.total / self.measured - 1,
        )


def run(cell: Cell, folder: Path, *, device: str) -> Result:
    """Measure a cell, and ask what is said of it."""
    from transformers import AutoConfig

    recipe = recipe_for(cell, folder)
    config = AutoConfig.from_pretrained(folder)
    batch = batch_for(cell, config.vocab_size)
    started = time.monotonic()
    measured, reserved = (measure_cuda if device == "cuda" else measure_cpu)(recipe, batch)
    between = time.monotonic()
    device_bytes = torch.cuda.get_device_properties(0).total_memory if device == "cuda" else None
    said, moment = simulated_bytes(recipe, config, batch, device=device, device_bytes=device_bytes)
    seconds = (between - started, time.monotonic() - between)
    analytic = analytic_bytes(recipe, batch, device=device, device_bytes=device_bytes)
    return Result(cell, measured, analytic, said, moment, seconds, reserved)


def simulated_bytes(
    recipe: Recipe, config: Any, batch: Batch, *, device: Any, device_bytes: int | None
) -> tuple[MemoryBytes, str]:
    """The simulated answer for the very tokens of a batch, and when the peak comes."""
    simulated = simulate_step(
        recipe,
        config,
        [batch],
        precision=cast(Precision, recipe.training.precision),
        device=device,
        device_bytes=device_bytes,
    )
    workspace = WORKSPACE_BYTES if device == "cuda" else 0
    return replace(simulated.bytes, overhead=simulated.bytes.overhead + workspace), simulated.moment


def analytic_bytes(recipe: Recipe, batch: Batch, *, device: str, device_bytes: int | None) -> MemoryBytes:
    """The analytic answer for the very tokens of a batch."""
    asked = question(recipe, device=device, device_bytes=device_bytes)
    setup = replace(asked.setup, scored=int((batch.weights_BL > 0).sum()), length=batch.input_ids_BL.shape[1])
    said = training_peak(asked.numbers.architecture, asked.numbers.weights, setup).bytes
    # torch counts tensors and workspaces; what CUDA itself holds of a process is not among them.
    return replace(said, overhead=said.overhead - CONTEXT_BYTES) if device == "cuda" else said


def asked_anew(result: Result, folder: Path, *, device: str, simulates: bool = False) -> Result:
    """A finished cell with the analytic answer of today, which costs nothing, or with both."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder)
    batch = batch_for(result.cell, config.vocab_size)
    recipe = recipe_for(result.cell, folder)
    if simulates:
        said, moment = simulated_bytes(recipe, config, batch, device=device, device_bytes=None)
        result = replace(result, simulated=said, moment=moment)
    return replace(result, analytic=analytic_bytes(recipe, batch, device=device, device_bytes=None))


def as_json(number: int, result: Result) -> str:
    values = asdict(result)
    return json.dumps({"number": number, **values}) + "\n"


def keep(lines: Path, number: int, result: Result) -> None:
    """Write a finished cell down, and show it."""
    with lines.open("a") as stream:
        stream.write(as_json(number, result))
    print(line(number, result), flush=True)


def from_json(text: str) -> tuple[int, Result]:
    values = json.loads(text)
    number = values.pop("number")
    for name, kind in (("cell", Cell), ("analytic", MemoryBytes), ("simulated", MemoryBytes)):
        values[name] = kind(**values[name])
    return number, Result(**values)


def line(number: int, result: Result) -> str:
    """A row of the table."""
    analytic, simulated = result.errors
    reserved = f" {result.reserved / 2**20:.1f} |" if result.reserved is not None else ""
    return (
        f"| {number} | {result.cell.name} | {result.measured / 2**20:.1f} |{reserved} "
        f"{result.analytic.total / 2**20:.1f} | {analytic:+.1%} | {result.simulated.total / 2**20:.1f} | "
        f"{simulated:+.2%} |"
    )


def summary(results: Sequence[Result]) -> list[str]:
    """Mean and worst errors, with the cells that are worst."""
    told = []
    for place, name in enumerate(("analytic", "simulated")):
        errors = [result.errors[place] for result in results]
        worst = max(range(len(errors)), key=lambda one: abs(errors[one]))
        least = min(range(len(errors)), key=lambda one: errors[one])
        told.append(
            f"- {name}: {statistics.fmean(map(abs, errors)):.2%} mean absolute error; worst {errors[worst]:+.2%} "
            f"({results[worst].cell.name}); most underestimated {errors[least]:+.2%} ({results[least].cell.name})"
        )
    return told


def document(done: dict[int, Result], num_cells: int) -> str:
    """memory.md: how it was measured, the summary, and all cells."""
    results = list(done.values())
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "peft", "bitsandbytes"))
    cores = os.cpu_count()
    return "\n".join(
        [
            "# What `ftk estimate-memory` says, and what a step takes",
            "",
            f"{len(results)} of {num_cells} cells on a CPU ({cores} cores, {platform.machine()}, one thread), Python "
            f"{platform.python_version()}, {versions}. Written by `python benchmarks/memory.py`, which says how cells "
            "are chosen and how peaks are measured. Sizes are in MiB; an error below 0 says too little.",
            "",
            *summary(results),
            "",
            "Not measured on a GPU: `--device cuda` does it at shapes of 1B and 8B parameters, and no GPU was at hand.",
            "",
            "| cell | what | measured | analytic | error | simulated | error |",
            "| ---: | --- | ---: | ---: | ---: | ---: | ---: |",
            *(line(number, result) for number, result in sorted(done.items())),
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--only", help="numbers of cells, such as 0,7")
    parser.add_argument("--ask-again", action="store_true", help="simulate finished cells of the CPU again")
    parser.add_argument("--lines", default="runs/memory.jsonl", help="where finished cells are kept")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    cells = choose_cells() if arguments.device == "cpu" else gpu_cells()
    shapes = SHAPES if arguments.device == "cpu" else GPU_SHAPES
    numbers = [int(one) for one in arguments.only.split(",")] if arguments.only else list(range(len(cells)))
    lines = Path(arguments.lines)
    lines.parent.mkdir(parents=True, exist_ok=True)
    lines.touch()
    done = dict(map(from_json, lines.read_text().splitlines()))
    with tempfile.TemporaryDirectory() as temporary:
        for number in numbers:
            cell = cells[number]
            if number in done and arguments.ask_again and arguments.device == "cpu":
                folder = save_config(shapes[cell.shape], Path(temporary) / "configs" / cell.shape)
                done[number] = asked_anew(done[number], folder, device=arguments.device, simulates=True)
                keep(lines, number, done[number])
            if number in done:
                continue
            folder = save_model(shapes[cell.shape], Path(temporary) / cell.shape.replace(" ", "_"))
            done[number] = run(cell, folder, device=arguments.device)
            keep(lines, number, done[number])
        if arguments.device == "cpu":
            for number, result in done.items():
                folder = save_config(shapes[result.cell.shape], Path(temporary) / "configs" / result.cell.shape)
                done[number] = asked_anew(result, folder, device=arguments.device)
    print(*summary(list(done.values())), sep="\n")
    if arguments.device == "cpu" and len(done) == len(cells):
        OUTPUT.write_text(document(done, len(cells)))


if __name__ == "__main__":
    main()
