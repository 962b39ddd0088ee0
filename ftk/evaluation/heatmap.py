"""Passkey retrieval as a picture and a table: which depths of which lengths a model finds."""

import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ftk.core.atomic import atomic_write

_CELL = re.compile(r"passkey_(\d+)@depth=([\d.e-]+)$")

Cells = dict[tuple[int, float], float]
"""Shares found by length and depth."""


def cells_of(metrics: Mapping[str, float], *, suffix: str = "") -> Cells:
    """Shares by length and depth among the figures of an evaluation; of those that end in `suffix`."""
    names = ((name.removesuffix(suffix), value) for name, value in metrics.items() if name.endswith(suffix))
    found = ((_CELL.match(name), value) for name, value in names)
    return {(int(match[1]), float(match[2])): value for match, value in found if match}


def print_heatmap(title: str, cells: Cells) -> None:
    """Print shares to standard output: lengths across, depths down."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    lengths, depths = _axes(cells)
    table = Table(box=SIMPLE_HEAD, pad_edge=False, title=title, title_justify="left", title_style="")
    for heading in ("depth", *(f"{length} tokens" for length in lengths)):
        table.add_column(heading, justify="right")
    for depth in depths:
        shares = [cells[length, depth] for length in lengths]
        styles = ["green" if share >= 0.9 else "yellow" if share >= 0.5 else "red" for share in shares]
        table.add_row(f"{depth:g}", *(Text(f"{share:.0%}", style) for share, style in zip(shares, styles, strict=True)))
    Console(highlight=False).print(table)


def draw_heatmaps(path: Path, panels: Mapping[str, Cells]) -> None:
    """Write a PNG with a heatmap for each of the evaluations, side by side."""
    # The figure is made without pyplot, which would keep it and choose a window system.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1 + 4 * len(panels), 4), layout="constrained")
    image: Any = None
    for panel, (title, cells) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        lengths, depths = _axes(cells)
        shares = [[cells[length, depth] for length in lengths] for depth in depths]
        image = panel.imshow(shares, vmin=0, vmax=1, cmap="RdYlGn", aspect="auto")
        panel.set_xticks(range(len(lengths)), [str(length) for length in lengths])
        panel.set_yticks(range(len(depths)), [f"{depth:g}" for depth in depths])
        panel.set(title=title, xlabel="tokens of the text", ylabel="depth of the pass key")
    figure.colorbar(image, label="found")
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110)
    atomic_write(path, picture.getvalue())


def _axes(cells: Cells) -> tuple[list[int], list[float]]:
    return sorted({length for length, _ in cells}), sorted({depth for _, depth in cells})
