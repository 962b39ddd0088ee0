"""Odds ratio preference optimization: learn the chosen completion, and keep it ahead of the rejected one by odds.

Shapes: P pairs.
"""

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from ftk.core.config import Section
from ftk.objectives.preference.compared import Pairs


def log_odds(mean_logps_P: Tensor) -> Tensor:
    """log(p / (1 - p)) of p, the geometric mean of the tokens' probabilities, given as log p."""
    # A probability that rounds to 1 would have infinite odds, and a gradient that is no number.
    mean_logps_P = mean_logps_P.clamp_max(-torch.finfo(mean_logps_P.dtype).eps)
    return mean_logps_P - torch.log(-torch.expm1(mean_logps_P))


def orpo_loss(
    chosen_P: Tensor, rejected_P: Tensor, chosen_lengths_P: Tensor, rejected_lengths_P: Tensor, *, beta: float
) -> Tensor:
    """The odds ratio's share of the loss, shape [P], from summed log-probabilities in nats and numbers of tokens.

    The paper writes lambda for beta, and adds the likelihood of chosen completions, which is a term of its own here.
    Source: Hong et al. 2024 (arXiv:2403.07691), equations 6 and 7.
    """
    ratio_P = log_odds(chosen_P / chosen_lengths_P) - log_odds(rejected_P / rejected_lengths_P)
    return -beta * F.logsigmoid(ratio_P)


class Orpo(Section):
    """Odds ratio preference optimization (arXiv:2403.07691): learns answers and preferences in one go."""

    name: Literal["orpo"] = "orpo"
    """`orpo`: learns answers and preferences in one go, by `sft_weight` 1 unless it is said; needs no reference."""
    beta: Annotated[float, Field(gt=0)] = 0.1
    """Weight of the odds ratio beside the likelihood of chosen completions; the paper's lambda."""

    rows: ClassVar[Literal["pairs"]] = "pairs"
    needs_reference: ClassVar[bool] = False
    customary_sft_weight: ClassVar[float] = 1.0

    def losses(self, pairs: Pairs) -> Tensor:
        return orpo_loss(
            pairs.chosen_P, pairs.rejected_P, pairs.chosen_lengths_P, pairs.rejected_lengths_P, beta=self.beta
        )

    def rewards(self, pairs: Pairs) -> tuple[Tensor, Tensor]:
        return pairs.per_token().rewards(self.beta)
