"""Divergences from the reference that a preference loss may be regularized by: how a log-ratio becomes a score.

With f the divergence's generator and u the ratio of probabilities, the reward that a policy stands for is beta f'(u),
up to a constant of the prompt. Source: Wang et al. 2023 (arXiv:2309.16240), theorem 1 and table 1.

Shapes: P pairs.
"""

import math
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from ftk.core.config import ByName, Section

LARGEST_EXPONENT = 80.0
"""Beyond, float32 knows no exponential: there a score bends into a constant, as TRL has it."""


def reverse_kl_score(log_ratios_P: Tensor) -> Tensor:
    """log u, from f(u) = u log u."""
    return log_ratios_P


def forward_kl_score(log_ratios_P: Tensor) -> Tensor:
    """1 - 1/u; the derivative of u - 1 - log u, which is that of -log u up to a constant."""
    return 1 - torch.exp((-log_ratios_P).clamp_max(LARGEST_EXPONENT))


def js_score(log_ratios_P: Tensor) -> Tensor:
    """log(2u / (1 + u)), of the Jensen-Shannon divergence."""
    return math.log(2) + F.logsigmoid(log_ratios_P)


def alpha_score(log_ratios_P: Tensor, *, alpha: float) -> Tensor:
    """(u^(alpha - 1) - 1) / (alpha - 1), which tends to log u as alpha tends to 1, and is 1 - 1/u at 0.

    This alpha, TRL's, is one minus that of Wang et al.
    """
    if abs(alpha - 1) < 1e-6:
        return log_ratios_P
    return torch.expm1((log_ratios_P * (alpha - 1)).clamp_max(LARGEST_EXPONENT)) / (alpha - 1)


class ReverseKl(Section):
    """The Kullback-Leibler divergence of the model from the reference; what DPO is derived from."""

    name: Literal["reverse_kl"] = "reverse_kl"
    """`reverse_kl`: the model may drop what the reference can say."""

    def score(self, log_ratios_P: Tensor) -> Tensor:
        return reverse_kl_score(log_ratios_P)


class ForwardKl(Section):
    """The Kullback-Leibler divergence of the reference from the model."""

    name: Literal["forward_kl"] = "forward_kl"
    """`forward_kl`: the model must keep what the reference can say; keeps answers diverse."""

    def score(self, log_ratios_P: Tensor) -> Tensor:
        return forward_kl_score(log_ratios_P)


class JensenShannon(Section):
    """The Jensen-Shannon divergence: bounded, between the two."""

    name: Literal["js"] = "js"
    """`js`: Jensen-Shannon; bounded, between `reverse_kl` and `forward_kl`."""

    def score(self, log_ratios_P: Tensor) -> Tensor:
        return js_score(log_ratios_P)


class Alpha(Section):
    """The alpha divergence, which leads from `forward_kl` at 0 to `reverse_kl` at 1."""

    name: Literal["alpha"] = "alpha"
    """`alpha`: between `forward_kl` and `reverse_kl`, as `alpha` says."""
    alpha: Annotated[float, Field(ge=0, le=1)] = 0.5
    """0 is `forward_kl`, 1 is `reverse_kl`."""

    def score(self, log_ratios_P: Tensor) -> Tensor:
        return alpha_score(log_ratios_P, alpha=self.alpha)


Divergence = Annotated[ReverseKl | ForwardKl | JensenShannon | Alpha, ByName()]
