"""Everything wrong with a file as one error."""

from collections.abc import Sequence

from ftk.core.errors import RecipeError
from ftk.recipe.written import Problem

MAX_SHOWN = 50
"""Problems listed in one error; past that the file is hardly what it should be."""


def listed(problems: Sequence[Problem]) -> RecipeError:
    """One error that lists every problem, in the order of the files' lines."""
    files: dict[str, int] = {}
    for problem in problems:
        files.setdefault(_file_and_line(problem)[0], len(files))
    ordered = sorted(dict.fromkeys(problems), key=lambda one: (files[_file_and_line(one)[0]], _file_and_line(one)[1]))
    first, *others = ordered[:MAX_SHOWN]
    lines = [first.message, *(f"{problem.place}: {problem.message}" for problem in others)]
    if len(ordered) > MAX_SHOWN:
        lines.append(f"... and {len(ordered) - MAX_SHOWN} more")
    return RecipeError("\n".join(lines), place=first.place)


def _file_and_line(problem: Problem) -> tuple[str, int]:
    file, _, line = problem.place.rpartition(":")
    return (file, int(line)) if line.isdecimal() else (problem.place, 0)
