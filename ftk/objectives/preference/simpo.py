"""Simple preference optimization: the reward is the mean log-probability of a token, as generation ranks answers.

Shapes: P pairs.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from ftk.core.config import Section
from ftk.objectives.preference.compared import Pairs


def simpo_loss(
    chosen_P: Tensor,
    rejected_P: Tensor,
    chosen_lengths_P: Tensor,
    rejected_lengths_P: Tensor,
    *,
    beta: float,
    gamma: float,
) -> Tensor:
    """Loss per pair, shape [P], from summed log-probabilities in nats and numbers of tokens.

    Source: Meng et al. 2024 (arXiv:2405.14734), equation 6.
    """
    return -F.logsigmoid(beta * (chosen_P / chosen_lengths_P - rejected_P / rejected_lengths_P) - gamma)


class Simpo(Section):
    """Simple preference optimization (arXiv:2405.14734): no reference, and length is not rewarded."""

    name: Literal["simpo"] = "simpo"
    """`simpo`: compares mean log-probabilities of a token; needs no reference."""
    beta: Annotated[float, Field(gt=0)] = 2.0
    """Scale of the rewards; 2 to 10 is customary."""
    gamma: Annotated[float, Field(ge=0)] = 1.0
    """By how much the chosen reward should be the greater; 0.3 to 0.5 of beta is customary."""

    rows: ClassVar[Literal["pairs"]] = "pairs"
    needs_reference: ClassVar[bool] = False
    customary_sft_weight: ClassVar[float] = 0.0

    def losses(self, pairs: Pairs) -> Tensor:
        return simpo_loss(
            pairs.chosen_P,
            pairs.rejected_P,
            pairs.chosen_lengths_P,
            pairs.rejected_lengths_P,
            beta=self.beta,
            gamma=self.gamma,
        )

    def rewards(self, pairs: Pairs) -> tuple[Tensor, Tensor]:
        return pairs.per_token().rewards(self.beta)
