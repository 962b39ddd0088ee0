"""What the curves of a run say, in words."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median, pvariance

Curve = Sequence[tuple[int, float]]
"""Pairs of optimizer step and loss in nats a token, in order."""

RISE = 0.01
"""Share by which the held-out loss must lie above its best to be called overfitting; below, it is noise."""
FALL = 0.01
"""Share by which the last stretch must still fall to promise more."""
JUMP = 1.5
"""How many times the usual loss a step must have to count as a jump."""
NOISE = 0.05
"""Share of the loss at the start below which no difference counts as a jump."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a person should know of the curves, and whether the last model is worse than an earlier one."""

    sentences: tuple[str, ...]
    overfitting: bool
    best_step: int | None
    """Step of the lowest held-out loss; None where there were no evaluations."""


def judge(train: Curve, held_out: Curve) -> Verdict:
    """Read the two curves of one run. The held-out curve may start at step 0, before training."""
    sentences = []
    best_step = min(held_out, key=lambda point: point[1])[0] if held_out else None
    overfitting = is_overfitting(held_out)
    unsteady = is_unsteady(train)
    if overfitting:
        sentences.append(
            f"overfitting since step {_next_step(held_out, best_step)}, the best was step {best_step}: "
            "train for fewer epochs, or on more data"
        )
    if unsteady:
        sentences.append("unsteady, try a lower learning rate")
    if not overfitting and not unsteady and is_still_falling(held_out if len(held_out) > 2 else train):
        sentences.append("still falling, more epochs may help")
    return Verdict(tuple(sentences), overfitting, best_step)


def is_overfitting(held_out: Curve) -> bool:
    """Whether the held-out loss ends clearly above its best, having once fallen."""
    if len(held_out) < 2:
        return False
    losses = [loss for _, loss in held_out]
    return losses[-1] > min(losses) * (1 + RISE)


def is_unsteady(train: Curve) -> bool:
    """Whether the training loss keeps jumping up in its second half, or has gone up again for good.

    A jump counts where it is half as high again as the nine steps before, and not small against the loss at the
    start: batches differ, and close to zero small differences are large ratios.
    """
    losses = [loss for _, loss in train]
    if len(losses) < 12:
        return False
    floor = NOISE * median(losses[:3])
    half = len(losses) // 2
    usual = [median(losses[max(0, at - 9) : at]) for at in range(half, len(losses))]
    jumps = sum(loss > JUMP * before + floor for loss, before in zip(losses[half:], usual, strict=True))
    quarter = len(losses) // 4
    lowest = min(median(losses[start : start + quarter]) for start in range(len(losses) - quarter + 1))
    went_up = median(losses[-quarter:]) > JUMP * lowest + floor
    return jumps >= max(2, 0.1 * (len(losses) - half)) or went_up


def is_still_falling(curve: Curve) -> bool:
    """Whether the last third of a curve lies lower than the third before, by more than the noise of both."""
    losses = [loss for _, loss in curve]
    if len(losses) < 3:
        return False
    third = max(1, len(losses) // 3)
    before, last = losses[-2 * third : -third], losses[-third:]
    noise = math.sqrt((pvariance(before) + pvariance(last)) / third)
    return fmean(before) - fmean(last) > max(FALL * fmean(before), 2 * noise)


def _next_step(held_out: Curve, step: int | None) -> int:
    steps = [point[0] for point in held_out]
    return steps[steps.index(step) + 1] if step in steps[:-1] else steps[-1]
