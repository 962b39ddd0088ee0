"""The frequencies of rotary position embeddings, and what every way of scaling them starts from.

A pair of features turns by `position * frequency` radians. Shapes: F frequencies, half the rotary dimension.

Source: Su et al. 2021 (arXiv:2104.09864), section 3.3.
"""

from typing import Annotated, Any, NamedTuple, Protocol

import torch
from pydantic import Field
from torch import Tensor

Factor = Annotated[float, Field(ge=1)]
"""How many times the length that a model was trained at it shall read."""


class Rotary(NamedTuple):
    """Rotary positions of a model as it was trained, and how far they shall reach."""

    theta: float
    """The base of the frequencies."""
    dim: int
    """Features of a head that are rotated."""
    original: int
    """Positions that the model was trained at."""
    length: int
    """Positions that it shall have."""
    factor: float
    """How much further they reach: `length / original`, or what the recipe says."""


class Scaling(Protocol):
    """A way to reach further, as the recipe names it."""

    factor: float | None

    def parameters(self, rotary: Rotary) -> dict[str, Any]:
        """What transformers' `rope_parameters` say of it; `rope_theta` where that changes."""

    def frequencies(self, rotary: Rotary) -> tuple[Tensor, float]:
        """float32 [F], and the factor on cosines and sines."""


def plain_frequencies(theta: float, dim: int) -> Tensor:
    """float32 [F]: `theta ** (-2 i / dim)`."""
    exponents_F = torch.arange(0, dim, 2, dtype=torch.float32) / dim
    return 1.0 / theta**exponents_F
