"""Robust DPO: unbiased although a known share of the pairs is the wrong way round.

Shapes: P pairs.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from ftk.core.config import Section
from ftk.objectives.preference.compared import Pairs
from ftk.objectives.preference.divergences import Divergence, ReverseKl


def robust_loss(chosen_rewards_P: Tensor, rejected_rewards_P: Tensor, *, flip_probability: float) -> Tensor:
    """Loss per pair, shape [P], whose mean over random flips of the labels is DPO's loss on the right ones.

    Args:
        chosen_rewards_P: beta times the score of the log-ratio to the reference.
        flip_probability: share of pairs that are the wrong way round, in [0, 0.5).

    Source: Chowdhury et al. 2024 (arXiv:2403.00409), the loss of rDPO in section 3.
    """
    margin_P = chosen_rewards_P - rejected_rewards_P
    kept_P, flipped_P = -F.logsigmoid(margin_P), -F.logsigmoid(-margin_P)
    return ((1 - flip_probability) * kept_P - flip_probability * flipped_P) / (1 - 2 * flip_probability)


class Robust(Section):
    """DPO for ratings of which a known share is wrong (arXiv:2403.00409)."""

    name: Literal["robust"] = "robust"
    """`robust`: DPO for ratings of which a known share is wrong."""
    beta: Annotated[float, Field(gt=0)] = 0.1
    """How strongly the model is held to the reference; 0.01 to 0.5 is customary."""
    flip_probability: Annotated[float, Field(ge=0, lt=0.5)] = 0.1
    """Share of pairs taken to be the wrong way round, below 0.5."""
    divergence: Divergence = ReverseKl()
    """What is measured from the reference, as for `dpo`."""

    rows: ClassVar[Literal["pairs"]] = "pairs"
    needs_reference: ClassVar[bool] = True
    customary_sft_weight: ClassVar[float] = 0.0

    def losses(self, pairs: Pairs) -> Tensor:
        return robust_loss(*self.rewards(pairs), flip_probability=self.flip_probability)

    def rewards(self, pairs: Pairs) -> tuple[Tensor, Tensor]:
        score = self.divergence.score
        chosen_P = score(pairs.chosen_P - pairs.ref_chosen_P)
        return self.beta * chosen_P, self.beta * score(pairs.rejected_P - pairs.ref_rejected_P)
