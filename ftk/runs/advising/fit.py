"""What makes a recipe fit into a memory: all combinations of changes, from the least harmful on."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any

from ftk.memory.units import shown
from ftk.recipe.rules import violations
from ftk.recipe.schema import Recipe
from ftk.runs.advising.changes import Change, Harm, Ladder, ladders
from ftk.runs.estimate import Question, estimate, question

MARGIN = 1.03
"""By how much a run may take more than is estimated: no cell of the benchmark takes more (benchmarks/memory.py)."""
NUM_PLANS = 6


@dataclass(frozen=True, slots=True)
class Plan:
    """Changes that are made together, and what the recipe then takes."""

    changes: tuple[Change, ...]
    total_bytes: int
    """On each device."""
    slowdown: float
    """Time of the whole run, in times of what it would be without the changes."""
    factors: tuple[float, ...]
    """Of each change by itself."""

    @property
    def overrides(self) -> tuple[str, ...]:
        return tuple(override for change in self.changes for override in change.overrides)

    @property
    def harm(self) -> Harm:
        return max((change.harm for change in self.changes), default=Harm.NONE)

    def as_json(self) -> dict[str, Any]:
        """Overrides and total, and each change with its factor and its reason."""
        return {
            "overrides": list(self.overrides),
            "total_bytes": self.total_bytes,
            "slowdown": round(self.slowdown, 3),
            "harm": self.harm.name.lower(),
            "changes": [
                {"overrides": list(change.overrides), "slowdown": round(factor, 3), "reason": change.reason}
                for change, factor in zip(self.changes, self.factors, strict=True)
            ],
        }


@dataclass(frozen=True, slots=True)
class Fit:
    """What fits into a memory."""

    memory_bytes: int
    """What a device has, or has free."""
    total_bytes: int
    """What the recipe takes on each as it is."""
    plans: tuple[Plan, ...]
    """Changes with which it fits, the least harmful first; empty where it fits as it is, or nothing fits."""
    nearest: Plan | None
    """What takes the least, where nothing fits."""

    @property
    def fits(self) -> bool:
        """Whether the recipe fits as it is."""
        return _holds(self.memory_bytes, self.total_bytes)

    def as_json(self) -> dict[str, Any]:
        return {
            "memory_bytes": self.memory_bytes,
            "total_bytes": self.total_bytes,
            "margin": MARGIN,
            "fits": self.fits,
            "plans": [plan.as_json() for plan in self.plans],
            "nearest": self.nearest.as_json() if self.nearest else None,
        }


def find_fit(
    asked: Question, memory_bytes: int, *, one_device: bool = False, again: Callable[[Recipe], Question] | None = None
) -> Fit:
    """Search what makes a recipe fit, and stop at a handful of ways that do not contain each other.

    Args:
        asked: the recipe as it is, on its device.
        memory_bytes: what each device has.
        one_device: leaves out spreading the model over more of them.
        again: the same question of a changed recipe; by default what the recipe alone says.
    """
    anew = again or partial(asked_anew, asked)
    now = estimate(asked).per_device.bytes.total
    if _holds(memory_bytes, now):
        return Fit(memory_bytes, now, (), None)
    found: list[tuple[tuple[int, ...], Plan]] = []
    nearest: Plan | None = None
    for places, changes in _combinations(asked, one_device=one_device):
        if any(_contains(places, known) for known, _ in found):
            continue
        plan = _plan(asked, changes, anew)
        if plan is None:
            continue
        if _holds(memory_bytes, plan.total_bytes):
            found.append((places, plan))
            if len(found) == NUM_PLANS:
                break
        elif nearest is None or plan.total_bytes < nearest.total_bytes:
            nearest = plan
    plans = sorted((plan for _, plan in found), key=lambda plan: (plan.harm, plan.slowdown, len(plan.changes)))
    return Fit(memory_bytes, now, tuple(plans), None if plans else nearest)


def _combinations(asked: Question, *, one_device: bool) -> Iterator[tuple[tuple[int, ...], tuple[Change, ...]]]:
    """All choices of one step on each ladder, by their harm and the number of changes."""
    every = ladders(asked.recipe, on_gpu=asked.setup.device == "cuda")
    if one_device:
        every = [one for one in every if not any(step and step.harm is Harm.MORE_DEVICES for step in one)]
    chosen = [(places, _steps(every, places)) for places in itertools.product(*(range(len(one)) for one in every))]
    chosen.sort(key=lambda one: (max((step.harm for step in one[1]), default=0), len(one[1]), one[0]))
    return (one for one in chosen if one[1])


def _steps(every: Sequence[Ladder], places: Sequence[int]) -> tuple[Change, ...]:
    steps = (ladder[place] for ladder, place in zip(every, places, strict=True))
    return tuple(step for step in steps if step is not None)


def _contains(places: Sequence[int], known: Sequence[int]) -> bool:
    """Whether one combination goes at least as far as another in every direction."""
    return all(place >= other for place, other in zip(places, known, strict=True))


def _plan(asked: Question, changes: Sequence[Change], anew: Callable[[Recipe], Question]) -> Plan | None:
    """What a recipe takes with the changes; None where they do not go together."""
    recipe: Recipe = asked.recipe
    for change in changes:
        recipe = change.apply(recipe)
    if violations(recipe):
        return None
    changed = anew(recipe)
    factors = tuple(change.slowdown(asked, changed) for change in changes)
    return Plan(tuple(changes), estimate(changed).per_device.bytes.total, prod(factors), factors)


def asked_anew(asked: Question, recipe: Recipe) -> Question:
    """The same question of a changed recipe for the same model."""
    setup = asked.setup
    return question(recipe, device=setup.device, device_bytes=setup.device_bytes, numbers=asked.numbers)


def _holds(memory_bytes: int, total_bytes: int) -> bool:
    return total_bytes * MARGIN <= memory_bytes


def nothing_fits(fit: Fit) -> str:
    """What to say where nothing fits."""
    assert fit.nearest is not None
    words = " ".join(fit.nearest.overrides)
    return (
        f"nothing that can be changed makes this recipe fit into {shown(fit.memory_bytes)}: it takes "
        f"{shown(fit.total_bytes)}. Nearest, with {shown(fit.nearest.total_bytes)}, is {words}. Take shorter rows "
        "(data.max_length), a smaller model, or a device with more memory"
    )
