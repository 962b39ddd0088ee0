"""YaRN: slow frequencies are interpolated, fast ones kept, those between in part, and attention is sharpened.

Shapes: F frequencies.
"""

import math
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from ftk.core.config import Section
from ftk.models.rope.frequencies import Factor, Rotary, plain_frequencies


def yarn_frequencies(
    *, theta: float, dim: int, factor: float, original: int, beta_fast: float, beta_slow: float
) -> Tensor:
    """float32 [F]: frequencies that turn less than `beta_slow` times within `original` positions are divided by the
    factor, those that turn more than `beta_fast` times are kept, and between the two the share falls evenly.

    The ramp goes by the number of the frequency, between bounds that are rounded outwards, as the authors' code has it.

    Source: Peng et al. 2023 (arXiv:2309.00071), section 3.2, equations 18 to 21.
    """

    def number_that_turns(turns: float) -> float:
        return dim * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(theta))

    first = max(math.floor(number_that_turns(beta_fast)), 0)
    last = min(math.ceil(number_that_turns(beta_slow)), dim - 1)
    width = last - first if last != first else 0.001
    interpolated_F = ((torch.arange(dim // 2, dtype=torch.float32) - first) / width).clamp(0, 1)
    plain_F = plain_frequencies(theta, dim)
    return plain_F / factor * interpolated_F + plain_F * (1 - interpolated_F)


def yarn_attention_factor(factor: float) -> float:
    """What cosines and sines are multiplied by, so that attention over more tokens stays as sharp.

    Source: Peng et al. 2023 (arXiv:2309.00071), equation 22: the square root of 1/t.
    """
    return 0.1 * math.log(factor) + 1.0 if factor > 1 else 1.0


class Yarn(Section):
    """YaRN (arXiv:2309.00071): reads further after the least training, and keeps what lies near."""

    name: Literal["yarn"] = "yarn"
    """`yarn`: each frequency is treated by how often it turns within the length that was trained."""
    factor: Factor | None = None
    """How many times further positions reach; by default `length` over the positions that the model was trained at."""
    beta_fast: Annotated[float, Field(gt=0)] = 32
    """Frequencies that turn more often than this within the trained length stay as they are."""
    beta_slow: Annotated[float, Field(gt=0)] = 1
    """Frequencies that turn less often than this within the trained length are divided by the factor."""
    attention_factor: Annotated[float, Field(gt=0)] | None = None
    """What cosines and sines are multiplied by; by default 0.1 ln(factor) + 1."""

    @model_validator(mode="after")
    def _fast_turns_faster(self) -> Self:
        if self.beta_fast <= self.beta_slow:
            raise ValueError(f"beta_fast ({self.beta_fast:g}) must be more than beta_slow ({self.beta_slow:g})")
        return self

    def parameters(self, rotary: Rotary) -> dict[str, Any]:
        return {
            "rope_type": "yarn",
            "factor": rotary.factor,
            "original_max_position_embeddings": rotary.original,
            "beta_fast": self.beta_fast,
            "beta_slow": self.beta_slow,
            "attention_factor": self._attention_factor(rotary.factor),
        }

    def frequencies(self, rotary: Rotary) -> tuple[Tensor, float]:
        frequencies_F = yarn_frequencies(
            theta=rotary.theta,
            dim=rotary.dim,
            factor=rotary.factor,
            original=rotary.original,
            beta_fast=self.beta_fast,
            beta_slow=self.beta_slow,
        )
        return frequencies_F, self._attention_factor(rotary.factor)

    def _attention_factor(self, factor: float) -> float:
        return yarn_attention_factor(factor) if self.attention_factor is None else self.attention_factor
