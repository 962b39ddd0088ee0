"""Anchored preference optimization, zero: chosen completions become more probable, rejected ones less.

Shapes: P pairs.
"""

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from ftk.core.config import Section
from ftk.objectives.preference.compared import Pairs


def apo_zero_loss(chosen_rewards_P: Tensor, rejected_rewards_P: Tensor) -> Tensor:
    """1 - sigmoid of the chosen reward plus sigmoid of the rejected one, shape [P]; 1 where nothing moved.

    Source: D'Oosterlinck et al. 2024 (arXiv:2408.06266), equation 7.
    """
    return torch.sigmoid(-chosen_rewards_P) + torch.sigmoid(rejected_rewards_P)


class ApoZero(Section):
    """For chosen answers that are better than what the model says by itself (arXiv:2408.06266)."""

    name: Literal["apo_zero"] = "apo_zero"
    """`apo_zero`: for chosen answers better than the model's own: makes them more probable, rejected ones less."""
    beta: Annotated[float, Field(gt=0)] = 0.1
    """How strongly the model is held to the reference; 0.01 to 0.5 is customary."""

    rows: ClassVar[Literal["pairs"]] = "pairs"
    needs_reference: ClassVar[bool] = True
    customary_sft_weight: ClassVar[float] = 0.0

    def losses(self, pairs: Pairs) -> Tensor:
        return apo_zero_loss(*self.rewards(pairs))

    def rewards(self, pairs: Pairs) -> tuple[Tensor, Tensor]:
        return pairs.rewards(self.beta)
