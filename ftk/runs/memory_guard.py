"""The estimate of memory guards a run: what is expected is said before the model loads, and compared with what came."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ftk.core.atomic import atomic_write
from ftk.core.errors import SetupError
from ftk.core.types import Batch
from ftk.memory.estimate import Estimate, MemoryBytes
from ftk.memory.gpus import CONTEXT_BYTES
from ftk.memory.stored import trained_sizes
from ftk.memory.units import shown
from ftk.recipe.schema import Recipe
from ftk.runs.advising.fit import MARGIN, Plan, find_fit, nothing_fits
from ftk.runs.advising.memory_size import free_bytes
from ftk.runs.estimate import Device, Question, estimate, question
from ftk.runs.host_memory import host_memory
from ftk.runs.model_numbers import ModelNumbers
from ftk.runs.tuned_model import loading_device
from ftk.runs.whole_weights import whole_refusal
from ftk.train.group import num_local_processes
from ftk.train.peak_memory import held_bytes, peak_memory_bytes

if TYPE_CHECKING:
    from accelerate import Accelerator

OVERESTIMATE = 1.10
"""By how much an estimate may lie above what a run takes (benchmarks/memory.py): what lacks less is let go on."""
TOLERANCE = 0.10
"""Share of the measured peak by which an estimate may be off before it is said."""
PROCESS_BYTES = 256 * 2**20
"""What a process on a CPU takes besides tensors while it trains: threads, buffers of kernels, libraries first used.

Measured on two cores as growth of the process less the estimate: 25 MB for ftk://tiny, 182 and 190 MB for a Llama of
25M parameters (full tuning, adamw and adamw_8bit, of 1.16 and 1.01 GB)."""
NUM_PLANS = 3


@dataclass(frozen=True, slots=True)
class Expectation:
    """What a run is expected to take on a device, as seen before the model is loaded."""

    answer: Estimate | None
    """None where it could not be estimated."""
    why_not: str | None
    is_known: bool
    """Whether the model's family is in the table, so that its activations are counted and not guessed."""
    free: int | None
    """Bytes that the device had free; None where it does not say."""
    held: int
    """Bytes that the process held already: on a CPU Python, libraries and data."""
    peak_before: int
    """The most that it had held by then."""
    started: int = 0
    """Bytes of the estimate that are taken already and not among the free ones: on a GPU CUDA's context."""
    fits_whole: bool = True
    """Whether the devices of all processes hold all weights as they are loaded, before any of them are given away."""

    def line(self) -> str:
        """What is said before the model is loaded."""
        free = "what is free is not known" if self.free is None else f"{shown(self.free)} free"
        if self.answer is None:
            return f"memory could not be estimated ({self.why_not}); {free}"
        return f"memory {shown(self.answer.per_device.bytes.total - self.started)} expected, {free}"

    def lacks(self, num_sharing: int) -> bool:
        """Whether it cannot fit, even if the estimate is too high by as much as it may be."""
        if self.answer is None or self.free is None:
            return False
        parts = self.answer.per_device.bytes
        # Of an unknown family the weights are counted exactly, and activations are a guess.
        surely = parts.total - self.started if self.is_known else _standing(parts)
        return num_sharing * surely > self.free * OVERESTIMATE


def expect_memory(
    recipe: Recipe, worst: Callable[[], Batch], accelerator: "Accelerator", say: Callable[[str], None], *, force: bool
) -> Expectation:
    """Say what a run will take and what is free, before the model is loaded; every process must call this.

    Args:
        recipe: what will run.
        worst: gives the micro-batch that needs most memory.
        accelerator: the run's processes.
        say: how a person is told.
        force: whether to go on where it cannot fit.

    Raises:
        SetupError: it cannot fit, with what would make it fit.
    """
    device = accelerator.device
    ask = partial(_ask, worst=worst, accelerator=accelerator)
    asked, answer, why_not = _estimated(recipe, ask)
    free = free_bytes(device)
    # All must load the model to the same kind of device.
    fits_whole = not _anywhere(not _fits_whole(asked, answer, free), accelerator)
    expectation = Expectation(
        answer,
        why_not,
        asked is not None and asked.numbers.is_known,
        free,
        held_bytes(device),
        peak_memory_bytes(device),
        # What is free was asked of CUDA, which has made its context by then.
        CONTEXT_BYTES if device.type == "cuda" else 0,
        fits_whole,
    )
    say(expectation.line())
    loads_whole = not fits_whole and loading_device(recipe, accelerator).type == "cpu"
    host = host_memory(answer, device, loads_whole=loads_whole) if answer is not None else None
    if host is not None:
        say(host.line())
    lacks_host = host is not None and host.lacks
    lacks = expectation.lacks(_sharing(device))
    # What does not fit in shards either is told with what makes it fit.
    whole = whole_refusal(recipe, answer, device, free) if answer is not None and not lacks else None
    if _anywhere(lacks_host or lacks or whole is not None, accelerator):
        found = host.refusal() if host is not None and lacks_host else whole
        message = found or _refusal(asked, ask, expectation, device)
        if not force:
            raise SetupError(f"{message}. --force goes on in spite of it")
        say(f"{message}. Going on all the same (--force)")
    return expectation


def compare_memory(expectation: Expectation, folder: Path, device: torch.device) -> str | None:
    """Write `memory.json`, what was expected against what came; a sentence where the estimate was off."""
    answer, peak = expectation.answer, peak_memory_bytes(device)
    measured = _measured(expectation, peak, device)
    predicted = _comparable(answer.per_device.bytes, device) if answer is not None else None
    error = (predicted - measured) / measured if predicted is not None and measured else None
    values = {
        "predicted_bytes": predicted,
        "measured_bytes": measured,
        "relative_error": error,
        "measured": MEASURED.get(device.type, MEASURED["cuda"]),
        "held_before_bytes": expectation.held,
        "free_before_bytes": expectation.free,
        "peak_bytes": peak,
        "estimate": answer.as_json() if answer is not None else None,
        "could_not_estimate": expectation.why_not,
    }
    atomic_write(folder / "memory.json", json.dumps(values, indent=2) + "\n")
    if predicted is None or measured is None or error is None or abs(error) <= TOLERANCE:
        return None
    if device.type == "cpu" and 0 <= measured - predicted <= PROCESS_BYTES:
        return None
    side = "above" if error > 0 else "below"
    how = " as the growth of the whole process, evaluations included" if device.type == "cpu" else ""
    return (
        f"memory: {shown(predicted)} were expected and {shown(measured)} measured{how}: the estimate lay "
        f"{abs(error):.0%} {side} it (memory.json in the run folder)"
    )


MEASURED = {
    "cpu": "growth of the whole process from before the model was loaded, evaluations included; null where reading the "
    "data had taken more",
    "cuda": "most bytes of tensors that torch had allocated, evaluations included",
}
"""What the measured figure is, by kind of device."""


def _estimated(
    recipe: Recipe, ask: Callable[[Recipe], Question]
) -> tuple[Question | None, Estimate | None, str | None]:
    """Question and answer, or why there is none."""
    try:
        asked = ask(recipe)
        return asked, estimate(asked), None
    except Exception as error:
        # The guard is there to help: whatever it trips over, the run goes on without it.
        return None, None, str(error).strip().split("\n")[0] or type(error).__name__


def _ask(
    recipe: Recipe,
    *,
    worst: Callable[[], Batch],
    accelerator: "Accelerator",
    numbers: ModelNumbers | None = None,
) -> Question:
    """What the recipe takes on the rows that it has, and not on rows of its `max_length`."""
    batch = worst()
    device = accelerator.device
    kind: Device = "cpu" if device.type == "cpu" else "cuda"
    total = torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else None
    processes = {"parallel": recipe.parallel.model_copy(update={"processes": accelerator.num_processes})}
    asked = question(recipe.model_copy(update=processes), device=kind, device_bytes=total, numbers=numbers)
    found, length = batch.input_ids_BL.shape
    wanted = recipe.training.micro_batch_size
    rows = found if wanted == "auto" else min(wanted, found)
    scored = round(int((batch.weights_BL > 0).sum()) * rows / found)
    is_split = recipe.training.batch_tokens is not None or recipe.training.batch_size > rows * accelerator.num_processes
    has_mask = batch.packed or batch.branches_BL is not None
    setup = replace(asked.setup, rows=rows, length=length, scored=scored, packed=has_mask, accumulates=is_split)
    return replace(asked, setup=setup)


def _refusal(
    asked: Question | None, ask: Callable[..., Question], expectation: Expectation, device: torch.device
) -> str:
    num_sharing = _sharing(device)
    if asked is None or expectation.answer is None or expectation.free is None:
        return "the run cannot fit on the device of another process, which says why"
    started = expectation.started
    needed, free = expectation.answer.per_device.bytes.total - started, expectation.free // num_sharing
    start = f"the run cannot fit: {shown(needed)} are expected, and {shown(free)} are free"
    if num_sharing > 1:
        start += f" for each of {num_sharing} processes"
    fit = find_fit(asked, free + started, one_device=True, again=partial(ask, numbers=asked.numbers))
    if not fit.plans:
        return f"{start}. {nothing_fits(fit)}" if fit.nearest else start
    on_machine = free_bytes(torch.device("cpu"))
    plans = fit.plans
    if on_machine is not None:
        plans = tuple(plan for plan in plans if plan.host_bytes * num_local_processes() <= on_machine)
    if on_machine is not None and not plans:
        return f"{start}. Shards in the machine's memory would fit, if more of that were free than {shown(on_machine)}"
    return f"{start}. What fits: {'; or '.join(_way(plan, started) for plan in plans[:NUM_PLANS])}"


def _way(plan: Plan, started: int) -> str:
    """What to paste, and what it takes."""
    takes = [shown(plan.total_bytes - started)]
    if plan.host_bytes:
        takes.append(f"{shown(plan.host_bytes)} of the machine's memory for each process")
    takes.append(f"{plan.slowdown:,.{2 if plan.slowdown < 10 else 0}f} times as long")
    return f"{' '.join(plan.overrides)} ({', '.join(takes)})"


def _fits_whole(asked: Question | None, answer: Estimate | None, free: int | None) -> bool:
    """Whether a device holds all weights, and beside them the part of the largest that it makes its shard of."""
    if asked is None or answer is None or free is None:
        return True
    largest = asked.setup.frozen_bytes * max(trained_sizes(asked.numbers.weights, None), default=0)
    return (answer.training.weights + answer.training.adapter) * MARGIN + largest <= free


def _standing(parts: MemoryBytes) -> int:
    return parts.weights + parts.adapter + parts.gradients + parts.optimizer


def _comparable(parts: MemoryBytes, device: torch.device) -> int:
    """What the measured figure is to be compared with: torch does not count what lies beside its tensors."""
    return parts.total if device.type == "cpu" else parts.total - parts.overhead


def _measured(expectation: Expectation, peak: int, device: torch.device) -> int | None:
    if device.type != "cpu":
        return peak
    return peak - expectation.held if peak > expectation.peak_before else None


def _sharing(device: torch.device) -> int:
    """Processes that share the memory of a device: all of this machine on a CPU."""
    return num_local_processes() if device.type == "cpu" else 1


def _anywhere(found: bool, accelerator: "Accelerator") -> bool:
    """Whether it is so on any process: all must then act alike."""
    if accelerator.num_processes == 1:
        return found
    flag = torch.tensor(float(found), device=accelerator.device)
    return float(accelerator.reduce(flag, "sum")) > 0
