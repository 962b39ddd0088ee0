"""Dynamic NTK scaling: the base grows with the text, so that short texts are read as they always were.

Shapes: F frequencies.
"""

import math
from typing import Any, Literal

from torch import Tensor

from ftk.core.config import Section
from ftk.models.rope.frequencies import Factor, Rotary, plain_frequencies


def dynamic_theta(*, theta: float, dim: int, factor: float, original: int, num_tokens: int) -> float:
    """The base for a text of so many tokens; as trained where it is no longer than `original`.

    Source: emozilla 2023, "Dynamically scaled RoPE", as transformers computes it; Peng et al. 2023 (arXiv:2309.00071),
    appendix B.3, for the idea.
    """
    stretch = factor * max(num_tokens, original) / original - (factor - 1)
    return theta * math.pow(stretch, dim / (dim - 2))


def dynamic_frequencies(*, theta: float, dim: int, factor: float, original: int, num_tokens: int) -> Tensor:
    """float32 [F]: plain frequencies of the base for a text of so many tokens."""
    base = dynamic_theta(theta=theta, dim=dim, factor=factor, original=original, num_tokens=num_tokens)
    return plain_frequencies(base, dim)


class Dynamic(Section):
    """Dynamic NTK scaling: nothing changes for texts as long as those that the model was trained at."""

    name: Literal["dynamic"] = "dynamic"
    """`dynamic`: the base of the frequencies follows the length of each text."""
    factor: Factor | None = None
    """How many times further positions reach; by default `length` over the positions that the model was trained at."""

    def parameters(self, rotary: Rotary) -> dict[str, Any]:
        return {"rope_type": "dynamic", "factor": rotary.factor}

    def frequencies(self, rotary: Rotary) -> tuple[Tensor, float]:
        """Those of a short text, which the model holds until a longer one comes."""
        return plain_frequencies(rotary.theta, rotary.dim), 1.0
