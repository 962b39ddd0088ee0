"""The hinge loss on preferences: a pair that is told apart by enough teaches no more.

Shapes: P pairs.
"""

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from ftk.core.config import Section
from ftk.objectives.preference.compared import Pairs


def hinge_loss(chosen_rewards_P: Tensor, rejected_rewards_P: Tensor) -> Tensor:
    """What the margin of rewards lacks to 1, shape [P].

    Source: Zhao et al. 2023 (arXiv:2305.10425), the calibration loss of SLiC-HF, whose delta is 1 / beta; relative to
    a reference it is the hinge-norm loss of Liu et al. 2023 (arXiv:2309.06657).
    """
    return torch.relu(1 - (chosen_rewards_P - rejected_rewards_P))


class Hinge(Section):
    """The hinge loss, known from SLiC-HF (arXiv:2305.10425)."""

    name: Literal["hinge"] = "hinge"
    """`hinge`: SLiC; a pair whose rewards are 1 apart teaches no more."""
    beta: Annotated[float, Field(gt=0)] = 0.1
    """Reward of a nat: log-probabilities must differ by 1 / beta before a pair teaches no more."""
    reference: bool = True
    """Compare with the model as the training began; false takes log-probabilities as they are, as SLiC does, for which
    `sft_weight` is customary."""

    rows: ClassVar[Literal["pairs"]] = "pairs"
    customary_sft_weight: ClassVar[float] = 0.0

    @property
    def needs_reference(self) -> bool:
        return self.reference

    def losses(self, pairs: Pairs) -> Tensor:
        return hinge_loss(*self.rewards(pairs))

    def rewards(self, pairs: Pairs) -> tuple[Tensor, Tensor]:
        return pairs.rewards(self.beta)
