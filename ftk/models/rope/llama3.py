"""The scaling of Llama 3.1: slow frequencies are divided, fast ones kept, with a smooth passage between.

Shapes: F frequencies.
"""

import math
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator
from torch import Tensor

from ftk.core.config import Section
from ftk.models.rope.frequencies import Factor, Rotary, plain_frequencies


def llama3_frequencies(
    *, theta: float, dim: int, factor: float, original: int, low_freq_factor: float, high_freq_factor: float
) -> Tensor:
    """float32 [F]: what turns less than `low_freq_factor` times within `original` positions is divided by the factor,
    what turns more than `high_freq_factor` times is kept.

    Source: `apply_scaling` in the code that Meta released with Llama 3.1.
    """
    plain_F = plain_frequencies(theta, dim)
    turns_F = original * plain_F / (2 * math.pi)
    kept_F = ((turns_F - low_freq_factor) / (high_freq_factor - low_freq_factor)).clamp(0, 1)
    return plain_F / factor * (1 - kept_F) + plain_F * kept_F


class Llama3(Section):
    """The scaling of Llama 3.1."""

    name: Literal["llama3"] = "llama3"
    """`llama3`: as Llama 3.1 was extended."""
    factor: Factor | None = None
    """How many times further positions reach; by default `length` over the positions that the model was trained at."""
    low_freq_factor: Annotated[float, Field(gt=0)] = 1
    """Frequencies that turn less often than this within the trained length are divided by the factor."""
    high_freq_factor: Annotated[float, Field(gt=0)] = 4
    """Frequencies that turn more often than this within the trained length stay as they are."""

    @model_validator(mode="after")
    def _high_turns_faster(self) -> Self:
        if self.high_freq_factor <= self.low_freq_factor:
            raise ValueError(
                f"high_freq_factor ({self.high_freq_factor:g}) must be more than low_freq_factor "
                f"({self.low_freq_factor:g})"
            )
        return self

    def parameters(self, rotary: Rotary) -> dict[str, Any]:
        return {
            "rope_type": "llama3",
            "factor": rotary.factor,
            "original_max_position_embeddings": rotary.original,
            "low_freq_factor": self.low_freq_factor,
            "high_freq_factor": self.high_freq_factor,
        }

    def frequencies(self, rotary: Rotary) -> tuple[Tensor, float]:
        frequencies_F = llama3_frequencies(
            theta=rotary.theta,
            dim=rotary.dim,
            factor=rotary.factor,
            original=rotary.original,
            low_freq_factor=self.low_freq_factor,
            high_freq_factor=self.high_freq_factor,
        )
        return frequencies_F, 1.0
