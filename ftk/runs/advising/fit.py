"""What makes a recipe fit into a memory: all combinations of changes, from the least harmful on."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any

from ftk.memory.analytic import Peak, training_peak
from ftk.memory.units import shown
from ftk.recipe.rules import violations
from ftk.recipe.schema import Recipe
from ftk.runs.advising.change import Change, Harm
from ftk.runs.advising.changes import ladders
from ftk.runs.estimate import Question, question
from ftk.train.settings import Strategy

MARGIN = 1.03
"""By how much a run may take more than is estimated: no cell of the benchmark takes more (benchmarks/memory.py)."""
NUM_PLANS = 6
WAYS: tuple[Strategy, ...] = ("ddp", "fsdp", "fsdp_offload")
"""How a model is spread, by how little each device holds."""
Places = tuple[int, ...]
"""How far is gone on each ladder."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Changes that are made together, and what the recipe then takes."""

    changes: tuple[Change, ...]
    total_bytes: int
    """On each device."""
    host_bytes: int
    """Of the machine's memory, for each device."""
    slowdown: float
    """Time of the whole run, in times of what it would be without the changes."""
    factors: tuple[float, ...]
    """Of each change by itself."""

    @property
    def overrides(self) -> tuple[str, ...]:
        return tuple(override for change in self.changes for override in change.overrides)

    @property
    def harms(self) -> tuple[Harm, ...]:
        """Of each change, the worst first."""
        return tuple(sorted((change.harm for change in self.changes), reverse=True))

    @property
    def harm(self) -> Harm:
        """Of the worst change."""
        return self.harms[0] if self.harms else Harm.NONE

    def as_json(self) -> dict[str, Any]:
        """Overrides and total, and each change with its factor and its reason."""
        return {
            "overrides": list(self.overrides),
            "total_bytes": self.total_bytes,
            "host_bytes": self.host_bytes,
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
        one_device: leaves out spreading the model over more of them than the recipe does.
        again: the same question of a changed recipe; by default what the recipe alone says.
    """
    now = _peak(asked).bytes.total
    if _holds(memory_bytes, now):
        return Fit(memory_bytes, now, (), None)
    search = _Search(asked, memory_bytes, again or partial(asked_anew, asked), one_device=one_device)
    plans = sorted(search.plans(), key=lambda plan: (plan.harms, plan.slowdown, len(plan.changes)))
    return Fit(memory_bytes, now, tuple(plans), None if plans else search.nearest)


class _Search:
    """All choices of one step on each ladder, of which as few as possible are estimated: one takes 0.04 s."""

    def __init__(
        self, asked: Question, memory_bytes: int, anew: Callable[[Recipe], Question], *, one_device: bool
    ) -> None:
        self._asked = asked
        self._memory_bytes = memory_bytes
        self._anew = anew
        self._ladders = ladders(asked.recipe, on_gpu=asked.setup.device == "cuda", more_devices=not one_device)
        self._bounds: dict[Places, bool] = {}
        self.nearest: Plan | None = None
        """What takes the least of all that was looked at."""

    def plans(self) -> list[Plan]:
        """Ways to fit that do not contain each other, those of little harm and few changes first."""
        found: dict[Places, Plan] = {}
        for rest in self._choices():
            if len(found) == NUM_PLANS:
                break
            if not self._may_fit(rest):
                continue
            # A way with the same further steps and larger portions is better.
            limits = [known[0] for known in found if self._contains(rest, known[1:])]
            place, plan = self._largest_portions(rest, min(limits, default=len(self._ladders["rows"])))
            if plan is not None and plan.changes:
                found[place, *rest] = plan
        return list(found.values())

    def _choices(self) -> list[Places]:
        """Places on the ladders behind that of rows."""
        lengths = [len(ladder) for ladder in list(self._ladders.values())[1:]]
        every = itertools.product(*(range(length) for length in lengths))
        return sorted(every, key=lambda rest: self._order((0, *rest)))

    def _order(self, places: Places) -> tuple[int, int, Places]:
        steps = self._steps(places)
        return max((step.harm for step in steps), default=0), len(steps), places

    def _may_fit(self, rest: Places) -> bool:
        """Whether it fits with the furthest steps on all ladders but those that change what is trained and where."""
        names = list(self._ladders)
        furthest = tuple(
            place if name in ("devices", "tuning") else len(self._ladders[name]) - 1
            for name, place in zip(names, (0, *rest), strict=True)
        )
        if furthest not in self._bounds:
            plan = self._plan(furthest)
            self._bounds[furthest] = _holds(self._memory_bytes, plan.total_bytes)
            if not violations(self._changed(furthest)) and self._is_nearer(plan):
                self.nearest = plan
        return self._bounds[furthest]

    def _largest_portions(self, rest: Places, limit: int) -> tuple[int, Plan | None]:
        """The first place below `limit` on the ladder of rows that fits, by bisection; None where none does."""
        best: tuple[int, Plan | None] = (limit, None)
        if limit == 0 or violations(self._changed((0, *rest))):
            return best
        low, high = 0, limit
        place = limit - 1
        while low < high:
            plan = self._plan((place, *rest))
            if _holds(self._memory_bytes, plan.total_bytes):
                best, high = (place, plan), place
            else:
                low = place + 1
                if self._is_nearer(plan):
                    self.nearest = plan
            place = (low + high) // 2
        return best

    def _contains(self, rest: Places, known: Places) -> bool:
        """Whether one choice goes at least as far as another in every direction."""
        names = list(self._ladders)[1:]
        return all(
            all(own >= other for own, other in zip(self._far(name, place), self._far(name, before), strict=True))
            for name, place, before in zip(names, rest, known, strict=True)
        )

    def _far(self, name: str, place: int) -> tuple[int, ...]:
        """How far a step goes; among devices in two directions, as fewer of them may be enough for offloaded shards."""
        if name != "devices":
            return (place,)
        step, recipe = self._ladders[name][place], self._asked.recipe
        parallel = (recipe if step is None else step.apply(recipe)).parallel
        return (1 if parallel.processes == "auto" else parallel.processes, WAYS.index(parallel.strategy))

    def _is_nearer(self, plan: Plan) -> bool:
        return self.nearest is None or plan.total_bytes < self.nearest.total_bytes

    def _plan(self, places: Places) -> Plan:
        changes = self._steps(places)
        changed = self._anew(self._changed(places))
        factors = tuple(change.slowdown(self._asked, changed) for change in changes)
        peak = _peak(changed)
        return Plan(changes, peak.bytes.total, peak.host, prod(factors), factors)

    def _changed(self, places: Places) -> Recipe:
        recipe = self._asked.recipe
        for change in self._steps(places):
            recipe = change.apply(recipe)
        return recipe

    def _steps(self, places: Places) -> tuple[Change, ...]:
        steps = (ladder[place] for ladder, place in zip(self._ladders.values(), places, strict=True))
        return tuple(step for step in steps if step is not None)


def _peak(asked: Question) -> Peak:
    """Bytes on each device, and of the machine's memory."""
    return training_peak(asked.numbers.architecture, asked.numbers.weights, asked.setup)


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
