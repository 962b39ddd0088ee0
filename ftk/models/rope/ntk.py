"""NTK-aware scaling: another base, under which slow frequencies are interpolated and fast ones hardly change.

Shapes: F frequencies.
"""

import math
from typing import Any, Literal

from torch import Tensor

from ftk.core.config import Section
from ftk.models.rope.frequencies import Factor, Rotary, plain_frequencies


def ntk_theta(*, theta: float, dim: int, factor: float) -> float:
    """The base under which the slowest frequency is divided by the factor, and the fastest stays as it is.

    Source: bloc97 2023, "NTK-aware scaled RoPE", as Peng et al. 2023 (arXiv:2309.00071) give it in equation 16.
    """
    return theta * math.pow(factor, dim / (dim - 2))


def ntk_frequencies(*, theta: float, dim: int, factor: float) -> Tensor:
    """float32 [F]: plain frequencies of the changed base."""
    return plain_frequencies(ntk_theta(theta=theta, dim=dim, factor=factor), dim)


class Ntk(Section):
    """NTK-aware scaling: reads further with little training, and keeps what lies near."""

    name: Literal["ntk"] = "ntk"
    """`ntk`: the base of the frequencies is raised, once and for all lengths. Saved as a changed `rope_theta`."""
    factor: Factor | None = None
    """How many times further positions reach; by default `length` over the positions that the model was trained at.

    Customary is a little more than that, as some frequencies are stretched less."""

    def parameters(self, rotary: Rotary) -> dict[str, Any]:
        changed = ntk_theta(theta=rotary.theta, dim=rotary.dim, factor=rotary.factor)
        return {"rope_type": "default", "rope_theta": changed}

    def frequencies(self, rotary: Rotary) -> tuple[Tensor, float]:
        return ntk_frequencies(theta=rotary.theta, dim=rotary.dim, factor=rotary.factor), 1.0
