"""Estimates as a picture: stacked bars by kind of bytes, or lines over a setting."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from ftk.core.atomic import atomic_write
from ftk.core.errors import RecipeError
from ftk.memory.estimate import MemoryBytes

Line = Sequence[tuple[int | None, MemoryBytes]]
"""Values of the setting, None where there is none, and what is taken there."""


def draw_memory(path: Path, *, title: str, lines: Mapping[str, Line], along: str | None) -> None:
    """Write a PNG: totals over the setting `along`, a line each; without a setting a stacked bar each.

    Raises:
        RecipeError: the file cannot be written.
    """
    # The figure is made without pyplot, which would keep it and choose a window system.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.5), layout="constrained")
    panel = figure.subplots()
    if along is None:
        base = [0.0] * len(lines)
        parts = [line[0][1].as_json() for line in lines.values()]
        for kind in list(parts[0])[:-1]:
            heights = [part[kind] / 1e9 for part in parts]
            panel.bar(list(lines), heights, bottom=base, label=kind.removesuffix("_bytes"), width=0.6)
            base = [below + height for below, height in zip(base, heights, strict=True)]
    else:
        for name, line in lines.items():
            values = [value or 0 for value, _ in line]
            panel.plot(values, [held.total / 1e9 for _, held in line], marker="o", label=name)
        panel.set_xscale("log", base=2)
        ticks = [value or 0 for value, _ in next(iter(lines.values()))]
        panel.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
        panel.set_xlabel(along)
    panel.set_ylabel("GB on each device")
    panel.set_title(title)
    panel.grid(alpha=0.3, axis="y")
    panel.legend()
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110)
    try:
        atomic_write(path, picture.getvalue())
    except OSError as error:
        raise RecipeError(f"cannot be written: {error.strerror}", place=str(path)) from error
