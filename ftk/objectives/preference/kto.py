"""Kahneman-Tversky optimization: completions by themselves, each wanted or not, against what the model gained anyway.

Shapes: N completions.
"""

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from ftk.core.config import Section
from ftk.objectives.preference.compared import Singles


def kto_loss(
    logps_N: Tensor,
    ref_logps_N: Tensor,
    desirable_N: Tensor,
    baseline: Tensor,
    *,
    beta: float,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Tensor:
    """Loss per completion, shape [N], from summed log-probabilities in nats; half its weight where all are equal.

    Args:
        desirable_N: bool, whether the completion is wanted.
        baseline: the divergence from the reference, a scalar: the mean of log-ratios of completions to other prompts.
            It takes part as at least 0, and without gradient.

    Source: Ethayarajh et al. 2024 (arXiv:2402.01306), equation 7 and the estimate of z_0 below it.
    """
    margin_N = logps_N - ref_logps_N - baseline.detach().clamp_min(0)
    signs_N = torch.where(desirable_N, 1.0, -1.0).to(margin_N.dtype)
    weights_N = torch.where(desirable_N, desirable_weight, undesirable_weight).to(margin_N.dtype)
    return weights_N * torch.sigmoid(-beta * signs_N * margin_N)


class Kto(Section):
    """Kahneman-Tversky optimization (arXiv:2402.01306), for completions that were judged one by one."""

    name: Literal["kto"] = "kto"
    """`kto`: learns from completions by themselves, each wanted or not; pairs count as two."""
    beta: Annotated[float, Field(gt=0)] = 0.1
    """How strongly the model is held to the reference; 0.01 to 0.5 is customary."""
    desirable_weight: Annotated[float, Field(gt=0)] = 1.0
    """Weight of wanted completions. Their weight times count is customarily 1 to 4/3 of that of unwanted ones."""
    undesirable_weight: Annotated[float, Field(gt=0)] = 1.0
    """Weight of unwanted completions."""

    rows: ClassVar[Literal["unpaired"]] = "unpaired"
    needs_reference: ClassVar[bool] = True
    customary_sft_weight: ClassVar[float] = 0.0

    def losses(self, singles: Singles) -> Tensor:
        return kto_loss(
            singles.logps_N,
            singles.ref_logps_N,
            singles.desirable_N,
            singles.baseline,
            beta=self.beta,
            desirable_weight=self.desirable_weight,
            undesirable_weight=self.undesirable_weight,
        )

    def rewards(self, singles: Singles) -> Tensor:
        return self.beta * (singles.logps_N - singles.ref_logps_N)
