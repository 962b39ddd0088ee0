"""`ftk estimate-memory` asked for advice: what makes a recipe fit, to paste or as a file; what others would take."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftk.core.errors import RecipeError, RunError
from ftk.memory.units import shown
from ftk.runs.advising.change import Harm
from ftk.runs.advising.compare import compare
from ftk.runs.advising.fit import Fit, Plan, find_fit, nothing_fits
from ftk.runs.advising.memory_size import memory_of
from ftk.runs.advising.written import check_new_file, write_changed
from ftk.runs.asked import TRAINABLE, Flags, ask, recipe_asked, split
from ftk.runs.estimate import question

RESULTS = {
    Harm.NONE: "the same result",
    Harm.NEARLY_NONE: "nearly the same result",
    Harm.MORE_DEVICES: "the same result on more devices",
    Harm.COARSER_WEIGHTS: "coarser weights",
    Harm.LESS_ROOM_TO_LEARN: "learns less",
    Harm.ANOTHER_METHOD: "another method",
}


PICTURE = "memory.png"


@dataclass(frozen=True, slots=True)
class Advice:
    """The flags that ask for it, as they were given."""

    fit: str | None = None
    gpu: str | None = None
    write: str | None = None
    compare: str | None = None
    sweep: str | None = None
    picture: str | None = None

    @property
    def fits(self) -> bool:
        """Whether it is asked what fits."""
        return any(given is not None for given in (self.fit, self.gpu, self.write))

    @property
    def compares(self) -> bool:
        """Whether several recipes are asked for."""
        return self.compare is not None or self.sweep is not None

    def memory_bytes(self) -> int:
        """
        Raises:
            RecipeError: both or neither is given, or it does not read.
        """
        if (self.fit is None) == (self.gpu is None):
            raise RecipeError("give --fit with a size such as 24GB, or --gpu with a name such as 'RTX 4090'")
        text, place = (self.fit, "--fit") if self.fit is not None else (str(self.gpu), "--gpu")
        return memory_of(str(text), place=place)


def advise(words: Sequence[str], flags: Flags, advice: Advice) -> Mapping[str, object] | None:
    """Give the advice that is asked for; None where none is.

    Raises:
        RunError: nothing fits; with the nearest.
        FtkError: anything in the question is wrong.
    """
    if advice.compares and advice.fits:
        raise RecipeError("--compare and --sweep tell totals, and --fit searches: ask for one of them")
    if advice.picture is not None and not advice.compares:
        raise RecipeError("nothing is drawn without --compare or --sweep", place="--picture")
    if advice.compares or advice.fits:
        flags.refuse_pace("is for one estimate, and --fit, --gpu, --compare and --sweep tell bytes. Leave it out")
    if advice.compares:
        picture = PICTURE if advice.picture is None else advice.picture
        return compare(words, flags, methods=advice.compare, sweep=advice.sweep, picture=picture)
    return fit_recipe(words, flags, advice) if advice.fits else None


def fit_recipe(words: Sequence[str], flags: Flags, request: Advice) -> Mapping[str, object]:
    """Search, print and, where asked, write what makes a recipe fit.

    Raises:
        RunError: nothing fits; with the nearest.
        FtkError: anything in the question is wrong.
    """
    memory_bytes = request.memory_bytes()
    base, _ = split(words)
    if request.write is not None:
        if base is None:
            raise RecipeError("--write needs a recipe to start from", place=request.write)
        check_new_file(Path(request.write))
    if flags.strategy not in (None, *TRAINABLE):
        raise RecipeError(
            f"ftk does not train with {flags.strategy}, so nothing can be proposed beside it. Give "
            f"{', '.join(TRAINABLE[:-1])} or {TRAINABLE[-1]}, or leave out --fit and --gpu for what it takes",
            place="--strategy",
        )
    asked = ask(words, flags)
    asked = question(asked.recipe, device=asked.setup.device, device_bytes=memory_bytes, numbers=asked.numbers)
    fit = find_fit(asked, memory_bytes)
    answer: dict[str, Any] = {"model": asked.numbers.name, **fit.as_json(), "written": request.write}
    if not fit.fits and not fit.plans:
        raise RunError(nothing_fits(fit), answer={**answer, "written": None})
    print_fit(fit)
    if request.write is not None and base is not None:
        plan = None if fit.fits else fit.plans[0]
        loaded = recipe_asked((*words, *(plan.overrides if plan else ())), flags)
        write_changed(Path(request.write), base, loaded, _comments(fit, plan))
        print(f"Wrote {request.write}. Train: ftk train {request.write}")
    return answer


def print_fit(fit: Fit) -> None:
    """Print what fits."""
    if fit.fits:
        room = shown(fit.memory_bytes - fit.total_bytes)
        print(f"It fits as it is: {shown(fit.total_bytes)} of {shown(fit.memory_bytes)}, {room} to spare.")
        return
    print(f"It does not fit as it is: {shown(fit.total_bytes)}, and there are {shown(fit.memory_bytes)}.")
    print("What fits, the least harmful first, to be put behind the recipe:")
    for plan in fit.plans:
        print(f"\n  {' '.join(plan.overrides)}")
        host = f" and {shown(plan.host_bytes)} of the machine's memory for each GPU" if plan.host_bytes else ""
        print(f"      {shown(plan.total_bytes)}{host}; {RESULTS[plan.harm]}; {_speed(plan.slowdown)}")
    print("\nWhy, and where the times are from:")
    told = {change.overrides: change for plan in fit.plans for change in plan.changes}
    for overrides, change in told.items():
        print(f"  {' '.join(overrides)}: {change.reason}")


def _speed(slowdown: float) -> str:
    return "about the same time" if abs(slowdown - 1) < 0.05 else f"{slowdown:.2g} times the time"


def _comments(fit: Fit, plan: Plan | None) -> list[str]:
    size = shown(fit.memory_bytes)
    if plan is None:
        return [f"Fits into {size} as it is: {shown(fit.total_bytes)} by ftk estimate-memory."]
    changes = [f"{' '.join(change.overrides)}: {change.reason}" for change in plan.changes]
    return [
        f"Fits into {size}: {shown(plan.total_bytes)} by ftk estimate-memory, with {_speed(plan.slowdown)}.",
        *changes,
    ]
