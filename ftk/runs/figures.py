"""Figures of a model before and after a run: kept in its folder, compared, and shown."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from ftk.core.atomic import atomic_write
from ftk.core.json_values import finite
from ftk.runs.summary import SampleAnswer

GENERAL_LOSS = "general_loss"
"""Loss on the built-in general text, in nats a token: what the model keeps of what it knew."""
LEFT_TO_RIGHT_LOSS = "left_to_right_loss"
"""Loss on held-out texts as they stand, in nats a token, where a model learns to fill holes in such."""
MAX_HARM = 0.02
"""Share of its left-to-right loss by which infilling may raise it before that is pointed out."""


@dataclass(frozen=True)
class Figures:
    """What a model was measured to be."""

    metrics: Mapping[str, float] = field(default_factory=dict)
    sample: tuple[str, str, str] | None = None
    """Question, reference and answer of one held-out row."""

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        values = finite({"metrics": self.metrics, "sample": self.sample})
        atomic_write(path, json.dumps(values, indent=2, allow_nan=False) + "\n")

    @classmethod
    def load(cls, path: Path) -> Self:
        saved = json.loads(path.read_text(encoding="utf-8"))
        # Without those that were no number.
        metrics = {name: value for name, value in saved["metrics"].items() if value is not None}
        return cls(metrics, tuple(saved["sample"]) if saved["sample"] else None)


def left_to_right_harm(before: Figures, after: Figures) -> str | None:
    """A sentence where infilling has cost more than a fiftieth of how well held-out texts are read on."""
    was, now = (figures.metrics.get(LEFT_TO_RIGHT_LOSS) for figures in (before, after))
    if was is None or now is None or now <= was * (1 + MAX_HARM):
        return None
    return (
        f"reading on suffers: the left-to-right loss on held-out texts rose from {was:.3f} to {now:.3f} nats a "
        f"token, by more than {MAX_HARM:.0%}. A lower task.fim_rate or learning rate keeps more"
    )


def sample_answer(before: Figures, after: Figures) -> SampleAnswer | None:
    """One held-out row with its answers, where answers were generated."""
    if after.sample is None:
        return None
    question, reference, answer = after.sample
    return SampleAnswer(question, reference, before.sample[2] if before.sample else None, answer)
