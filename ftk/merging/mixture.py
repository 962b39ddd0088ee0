"""What a mixture of experts shall be made of, as its file says it."""

from dataclasses import dataclass
from typing import Literal

import torch

from ftk.merging.configuration import ModelName

GateMode = Literal["hidden", "hidden_last", "hidden_avg", "cheap_embed", "random", "uniform"]
PROMPTED: tuple[GateMode, ...] = ("hidden", "hidden_last", "hidden_avg", "cheap_embed")
"""Routers that are made of prompts."""


@dataclass(frozen=True)
class Expert:
    """One model whose perceptrons become an expert of each layer."""

    model: ModelName
    place: str
    """`file:line`, for messages."""
    positive: tuple[str, ...] = ()
    """Prompts that it is for."""
    negative: tuple[str, ...] = ()
    """Prompts that it is not for."""
    noise_scale: float = 0.0
    """Standard deviation of noise on its weights, by which copies of one model begin to differ."""
    residual_scale: float = 1.0
    """Factor on what it adds to the residual stream."""


@dataclass(frozen=True)
class Mixture:
    """A whole mixture."""

    base: ModelName
    """Has all that is not an expert's or a router's."""
    experts: tuple[Expert, ...]
    place: str
    shared: tuple[Expert, ...] = ()
    """Experts that see every token."""
    gate_mode: GateMode = "hidden"
    """How routers begin."""
    experts_per_token: int = 2
    architecture: str | None = None
    """Model type of the output that the file insists on."""
    dtype: torch.dtype | None = None
    """Of the output; the base's by default."""
    seed: int = 0
    name: str = "moe"

    def models(self) -> list[ModelName]:
        """All models that are named, the base first."""
        return list(dict.fromkeys([self.base, *(one.model for one in (*self.experts, *self.shared))]))
