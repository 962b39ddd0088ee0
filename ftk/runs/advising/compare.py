"""`--compare` and `--sweep`: the same recipe under several methods and over the values of one setting."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from ftk.core.errors import RecipeError
from ftk.memory.estimate import Estimate
from ftk.memory.units import parse_count, shown
from ftk.runs.advising.memory_picture import draw_memory
from ftk.runs.asked import Flags, ask
from ftk.runs.estimate import estimate

METHODS = {
    "full": ("tuning=full", "quantization=null"),
    "lora": ("tuning=lora", "quantization=null"),
    "qlora": ("tuning=lora", "quantization=nf4"),
}
SWEPT = {
    "sequence_length": "data.max_length",
    "batch_size": "training.micro_batch_size",
    "rank": "tuning.rank",
    "processes": "parallel.processes",
}
"""What can be swept, as the flags call it, and the setting."""
MOST_POINTS = 32


@dataclass(frozen=True, slots=True)
class Sweep:
    """Values of one setting."""

    name: str
    path: str
    values: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Cell:
    """One of the recipes that are compared."""

    method: str | None
    value: int | None
    answer: Estimate

    def as_json(self, sweep: Sweep | None) -> dict[str, Any]:
        where: dict[str, Any] = {} if self.method is None else {"tuning": self.method}
        if sweep is not None:
            where[sweep.name] = self.value
        return {**where, "trainable_parameters": self.answer.trainable_parameters, **self.answer.per_device.as_json()}


def compare(
    words: Sequence[str], flags: Flags, *, methods: str | None, sweep: str | None, picture: str
) -> Mapping[str, object]:
    """Estimate every combination, print a table and draw a PNG.

    Raises:
        FtkError: a method, a setting or its values do not read, or a recipe so changed is wrong.
    """
    path = _picture_path(picture)
    asked = _methods(methods)
    swept = parse_sweep(sweep) if sweep is not None else None
    cells = []
    for method, value in product(asked, swept.values if swept else (None,)):
        changes = [*METHODS.get(method or "", ()), *([f"{swept.path}={value}"] if swept else [])]
        cells.append(Cell(method, value, estimate(ask((*words, *changes), flags))))
    _print_table(cells, swept)
    lines = {method: [cell for cell in cells if cell.method == method] for method in asked}
    draw_memory(
        path,
        title=ask(words, flags).numbers.name,
        lines={
            method or "recipe": [(cell.value, cell.answer.per_device.bytes) for cell in line]
            for method, line in lines.items()
        },
        along=swept.name.replace("_", " ") if swept else None,
    )
    print(f"Drawn in {path}.")
    return {"cells": [cell.as_json(swept) for cell in cells], "picture": str(path)}


def parse_sweep(text: str) -> Sweep:
    """`sequence_length=1k..32k` doubles from the one to the other; `rank=8,16,64` takes these.

    Raises:
        RecipeError: it does not read, or takes too many values.
    """
    name, equals, values = text.partition("=")
    name = name.strip().replace("-", "_")
    if name not in SWEPT or not equals:
        raise RecipeError(
            f"{text!r} is no sweep. Expected such as sequence_length=1k..32k, of {', '.join(SWEPT)}", place="--sweep"
        )
    if ".." not in values:
        found = [parse_count(value, place="--sweep") for value in values.split(",")]
    else:
        first, _, last = values.partition("..")
        low, high = parse_count(first, place="--sweep"), parse_count(last, place="--sweep")
        if low > high:
            raise RecipeError(f"{values} runs backwards", place="--sweep")
        found = [low]
        while found[-1] * 2 <= high:
            found.append(found[-1] * 2)
        found += [high] if found[-1] != high else []
    if len(found) > MOST_POINTS:
        raise RecipeError(f"{len(found)} values are more than the {MOST_POINTS} that a table holds", place="--sweep")
    return Sweep(name, SWEPT[name], tuple(sorted(set(found))))


def _methods(text: str | None) -> tuple[str | None, ...]:
    if text is None:
        return (None,)
    found = tuple(dict.fromkeys(name.strip().lower() for name in text.split(",")))
    unknown = [name for name in found if name not in METHODS]
    if unknown:
        raise RecipeError(f"{unknown[0]!r} is not compared. Expected some of {', '.join(METHODS)}", place="--compare")
    return found


def _picture_path(picture: str) -> Path:
    path = Path(picture)
    if path.suffix != ".png" or not path.parent.is_dir():
        raise RecipeError("expected a .png in a folder that exists", place=picture)
    return path


def _print_table(cells: Sequence[Cell], sweep: Sweep | None) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    kinds = [name.removesuffix("_bytes") for name in cells[0].answer.per_device.bytes.as_json()]
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    if cells[0].method is not None:
        table.add_column("tuning")
    if sweep is not None:
        table.add_column(sweep.name.replace("_", " "), justify="right")
    for kind in kinds:
        table.add_column(kind, justify="right")
    for cell in cells:
        where = [cell.method] if cell.method is not None else []
        where += [f"{cell.value:,}"] if cell.value is not None else []
        table.add_row(*where, *(shown(value) for value in cell.answer.per_device.bytes.as_json().values()))
    Console(highlight=False, width=None if _is_terminal() else 160).print(table)


def _is_terminal() -> bool:
    import sys

    return sys.stdout.isatty()
