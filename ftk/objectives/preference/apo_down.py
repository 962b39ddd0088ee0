"""Anchored preference optimization, down: both completions become less probable, the rejected one more so.

Shapes: P pairs.
"""

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from ftk.core.config import Section
from ftk.objectives.preference.compared import Pairs


def apo_down_loss(chosen_rewards_P: Tensor, rejected_rewards_P: Tensor) -> Tensor:
    """Sigmoid of the chosen reward plus 1 - sigmoid of the margin, shape [P]; 1 where nothing moved.

    Source: D'Oosterlinck et al. 2024 (arXiv:2408.06266), equation 8.
    """
    return torch.sigmoid(chosen_rewards_P) + torch.sigmoid(rejected_rewards_P - chosen_rewards_P)


class ApoDown(Section):
    """For chosen answers that are worse than what the model says by itself (arXiv:2408.06266)."""

    name: Literal["apo_down"] = "apo_down"
    """`apo_down`: for chosen answers worse than the model's own: makes both less probable, rejected ones more so."""
    beta: Annotated[float, Field(gt=0)] = 0.1
    """How strongly the model is held to the reference; 0.01 to 0.5 is customary."""

    rows: ClassVar[Literal["pairs"]] = "pairs"
    needs_reference: ClassVar[bool] = True
    customary_sft_weight: ClassVar[float] = 0.0

    def losses(self, pairs: Pairs) -> Tensor:
        return apo_down_loss(*self.rewards(pairs))

    def rewards(self, pairs: Pairs) -> tuple[Tensor, Tensor]:
        return pairs.rewards(self.beta)
