"""Position interpolation: positions are pressed into the range that was trained.

Shapes: F frequencies.
"""

from typing import Any, Literal

from torch import Tensor

from ftk.core.config import Section
from ftk.models.rope.frequencies import Factor, Rotary, plain_frequencies


def linear_frequencies(*, theta: float, dim: int, factor: float) -> Tensor:
    """float32 [F]: all frequencies divided by the factor, as if positions were.

    Source: Chen et al. 2023 (arXiv:2306.15595), equation 4.
    """
    return plain_frequencies(theta, dim) / factor


class Linear(Section):
    """Position interpolation (arXiv:2306.15595): simple, and blurs what lies near."""

    name: Literal["linear"] = "linear"
    """`linear`: every frequency is divided by the factor. Needs training at the new length."""
    factor: Factor | None = None
    """How many times further positions reach; by default `length` over the positions that the model was trained at."""

    def parameters(self, rotary: Rotary) -> dict[str, Any]:
        return {"rope_type": "linear", "factor": rotary.factor}

    def frequencies(self, rotary: Rotary) -> tuple[Tensor, float]:
        return linear_frequencies(theta=rotary.theta, dim=rotary.dim, factor=rotary.factor), 1.0
