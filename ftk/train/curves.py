"""The curves of a run as a picture."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ftk.core.atomic import atomic_write

ACCURACIES = ("token_accuracy", "preference_accuracy", "rewards_margin")
"""How well it is learned, by what a task tells: answers, pairs, or completions by themselves."""


def draw_curves(path: Path, steps: Sequence[Mapping[str, Any]], evaluations: Sequence[Mapping[str, Any]]) -> None:
    """Write a PNG of loss, accuracy, learning rate and gradient norm over optimizer steps."""
    # The figure is made without pyplot, which would keep it and choose a window system.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 7), layout="constrained")
    panels = figure.subplots(2, 2).flat
    accuracy = next((key for key in ACCURACIES if any(key in record for record in steps)), ACCURACIES[0])
    for panel, key in zip(panels, ("loss", accuracy, "learning_rate", "grad_norm"), strict=True):
        panel.plot(*_points(steps, key), linewidth=1, label="training")
        if any(record.get(key) is not None for record in evaluations):
            panel.plot(*_points(evaluations, key), marker="o", label="held out")
            panel.legend()
        panel.set_title(key.replace("_", " "))
        panel.set_xlabel("step")
        panel.grid(alpha=0.3)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110)
    atomic_write(path, picture.getvalue())


def _points(records: Sequence[Mapping[str, Any]], key: str) -> tuple[list[int], list[float]]:
    present = [record for record in records if record.get(key) is not None]
    return [record["step"] for record in present], [record[key] for record in present]
