"""Whether preference tuning has made the chosen answers less probable, in words."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, variance
from typing import Any

FIGURE = "logps_chosen"
FALL, SHARE = 0.1, 0.01
"""Nats an answer, and share of its log-probability, by which that must fall to be pointed out."""


def falling_chosen(
    before: Mapping[str, float], after: Mapping[str, float], steps: Sequence[Mapping[str, Any]]
) -> str | None:
    """A sentence where chosen answers have become less probable; None where not, or where nothing is known of it.

    The margin then grows because rejected answers fall faster, and what rises may be answers that nobody has rated.
    Held-out figures count where there are any, else the thirds at the ends of the training curve, beyond their noise.
    Source: Pal et al. 2024 (arXiv:2402.13228), section 3; Razin et al. 2024 (arXiv:2410.08847).
    """
    if FIGURE in before and FIGURE in after:
        was, now, noise, where = before[FIGURE], after[FIGURE], 0.0, "held-out "
    else:
        values = [float(step[FIGURE]) for step in steps if step.get(FIGURE) is not None]
        third = len(values) // 3
        if third < 2:
            return None
        first, last = values[:third], values[-third:]
        was, now, where = fmean(first), fmean(last), ""
        noise = 2 * math.sqrt((variance(first) + variance(last)) / third)
    if not was - now > FALL + SHARE * abs(was) + noise:
        return None
    return (
        f"the log-probability of {where}chosen answers fell from {was:.2f} to {now:.2f} nats an answer: the model has "
        "learned to avoid the rejected ones more than to give the chosen ones. A lower learning rate, fewer epochs, or "
        "task.sft_weight: 0.2 holds it"
    )


def logged_steps(metrics_file: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl; none on a process that writes none."""
    if not metrics_file.exists():
        return []
    return [json.loads(line) for line in metrics_file.read_text(encoding="utf-8").splitlines()]
