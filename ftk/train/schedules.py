"""How the learning rate moves: a factor that depends on the step and on the total alone.

Nothing is counted here, so the learning rate of a step is the same for any number of processes, any split into
micro-batches, and after resuming. Steps count from 1, as in metrics.jsonl; `done` is the number of updates before.
"""

import math
from typing import Annotated, Literal

from pydantic import Field

from ftk.core.config import ByName, Section

WarmupRatio = Annotated[
    float,
    Field(ge=0, le=1, description="Share of all steps over which the learning rate rises to its peak in even steps."),
]
WarmupSteps = Annotated[
    Annotated[int, Field(ge=0)] | None,
    Field(description="Steps over which the learning rate rises to its peak; wins over `warmup_ratio`."),
]
MinRatio = Annotated[float, Field(ge=0, le=1, description="Where the learning rate ends, as a fraction of its peak.")]


def count_steps(total_steps: int, ratio: float, steps: int | None) -> int:
    """A number of steps given outright, or as a ratio of all of them (rounded up, so that 0.03 of 20 is one)."""
    return min(total_steps, math.ceil(ratio * total_steps - 1e-9) if steps is None else steps)


def warmup(done: int, warmup_steps: int) -> float:
    """Rises evenly over the warmup and is 1 at the first step after it; never 0, as that would waste an update."""
    return min(1.0, (done + 1) / (warmup_steps + 1))


def progress(done: int, start: int, end: int) -> float:
    """How far `done` lies between `start` and `end`, in [0, 1]."""
    return min(1.0, max(0.0, (done - start) / max(1, end - start)))


def cosine_decay(fraction: float, min_ratio: float) -> float:
    """Half a cosine from 1 to `min_ratio`. Source: Loshchilov and Hutter 2017 (arXiv:1608.03983), equation 5."""
    return min_ratio + (1 - min_ratio) * 0.5 * (1 + math.cos(math.pi * fraction))


def linear_decay(fraction: float, min_ratio: float) -> float:
    """A straight line from 1 to `min_ratio`."""
    return 1 - (1 - min_ratio) * fraction


def sqrt_decay(fraction: float, min_ratio: float) -> float:
    """One minus the root, from 1 to `min_ratio`. Source: Hägele et al. 2024 (arXiv:2405.18392), section 3.1."""
    return 1 - (1 - min_ratio) * math.sqrt(fraction)


class Cosine(Section):
    """Warm up, then follow half a cosine down to `min_ratio` of the peak."""

    name: Literal["cosine"] = "cosine"
    """`cosine`: the customary choice where the number of steps is known."""
    warmup_ratio: WarmupRatio = 0.03
    warmup_steps: WarmupSteps = None
    min_ratio: MinRatio = 0.0

    def factor(self, step: int, total_steps: int) -> float:
        """Fraction of the peak learning rate at `step`, counted from 1."""
        start = count_steps(total_steps, self.warmup_ratio, self.warmup_steps)
        return warmup(step - 1, start) * cosine_decay(progress(step - 1, start, total_steps), self.min_ratio)


class Linear(Section):
    """Warm up, then go down in a straight line to `min_ratio` of the peak."""

    name: Literal["linear"] = "linear"
    """`linear`: a straight line down."""
    warmup_ratio: WarmupRatio = 0.03
    warmup_steps: WarmupSteps = None
    min_ratio: MinRatio = 0.0

    def factor(self, step: int, total_steps: int) -> float:
        """Fraction of the peak learning rate at `step`, counted from 1."""
        start = count_steps(total_steps, self.warmup_ratio, self.warmup_steps)
        return warmup(step - 1, start) * linear_decay(progress(step - 1, start, total_steps), self.min_ratio)


class Constant(Section):
    """Stay at the peak, after a warmup where one is asked for."""

    name: Literal["constant"] = "constant"
    """`constant`: the same learning rate throughout."""
    warmup_ratio: WarmupRatio = 0.0
    warmup_steps: WarmupSteps = None

    def factor(self, step: int, total_steps: int) -> float:
        """Fraction of the peak learning rate at `step`, counted from 1."""
        return warmup(step - 1, count_steps(total_steps, self.warmup_ratio, self.warmup_steps))


class Wsd(Section):
    """Warm up, stay at the peak, and decay at the end, so that the stable part can be prolonged later.

    Source: Hu et al. 2024 (arXiv:2404.06395), section 4.
    """

    name: Literal["wsd"] = "wsd"
    """`wsd`: warmup, stable, decay."""
    warmup_ratio: WarmupRatio = 0.03
    warmup_steps: WarmupSteps = None
    decay_ratio: Annotated[float, Field(ge=0, le=1)] = 0.2
    """Share of all steps, at the end, over which the learning rate falls."""
    decay_steps: Annotated[int, Field(ge=0)] | None = None
    """Steps at the end over which the learning rate falls; wins over `decay_ratio`."""
    decay: Literal["linear", "sqrt"] = "sqrt"
    """Form of the fall: a straight line, or one minus the root, which falls faster at first."""
    min_ratio: MinRatio = 0.0

    def factor(self, step: int, total_steps: int) -> float:
        """Fraction of the peak learning rate at `step`, counted from 1."""
        start = total_steps - count_steps(total_steps, self.decay_ratio, self.decay_steps)
        fraction = progress(step - 1, start, total_steps)
        fall = sqrt_decay if self.decay == "sqrt" else linear_decay
        rise = warmup(step - 1, count_steps(total_steps, self.warmup_ratio, self.warmup_steps))
        return rise * fall(fraction, self.min_ratio)


Schedule = Annotated[Cosine | Linear | Constant | Wsd, ByName(default="cosine")]
