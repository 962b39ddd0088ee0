"""One change of a recipe so that it takes less memory: what it overrides, what it does to the result, what it costs."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

from ftk.recipe.schema import Recipe
from ftk.runs.estimate import Question


class Harm(IntEnum):
    """What a change does to the result, the least first."""

    NONE = 0
    NEARLY_NONE = 1
    MORE_DEVICES = 2
    """The same result, for more money."""
    COARSER_WEIGHTS = 3
    LESS_ROOM_TO_LEARN = 4
    ANOTHER_METHOD = 5


@dataclass(frozen=True, slots=True)
class Change:
    """One step away from the recipe."""

    overrides: tuple[str, ...]
    """To be pasted behind the recipe."""
    apply: Callable[[Recipe], Recipe]
    harm: Harm
    slowdown: Callable[[Question, Question], float]
    """Time of the run in times of what it was, from the question as it stood and as it then stands."""
    reason: str
    """What it does to the result and where the slow-down is from."""


Ladder = tuple[Change | None, ...]
"""Steps in one direction, of which one is taken: None leaves things as they are, and each further one goes further."""
