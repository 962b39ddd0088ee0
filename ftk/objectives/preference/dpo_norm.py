"""DPO on means over tokens, so that a long completion weighs no more than a short one.

Shapes: P pairs.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import Field
from torch import Tensor

from ftk.core.config import Section
from ftk.objectives.preference.compared import Pairs
from ftk.objectives.preference.dpo import dpo_loss


def dpo_norm_loss(
    chosen_P: Tensor,
    rejected_P: Tensor,
    ref_chosen_P: Tensor,
    ref_rejected_P: Tensor,
    chosen_lengths_P: Tensor,
    rejected_lengths_P: Tensor,
    *,
    beta: float,
) -> Tensor:
    """Loss per pair, shape [P], from summed log-probabilities in nats and numbers of tokens.

    Source: Lambert et al. 2024 (arXiv:2411.15124), section 5.1.2, length-normalized DPO.
    """
    return dpo_loss(
        chosen_P / chosen_lengths_P,
        rejected_P / rejected_lengths_P,
        ref_chosen_P / chosen_lengths_P,
        ref_rejected_P / rejected_lengths_P,
        beta=beta,
    )


class DpoNorm(Section):
    """Length-normalized DPO, as Tulu 3 was trained (arXiv:2411.15124)."""

    name: Literal["dpo_norm"] = "dpo_norm"
    """`dpo_norm`: DPO on means over tokens; does not reward length."""
    beta: Annotated[float, Field(gt=0)] = 5.0
    """How strongly the model is held to the reference. Means over tokens are small: 2 to 10 is customary, not 0.1."""

    rows: ClassVar[Literal["pairs"]] = "pairs"
    needs_reference: ClassVar[bool] = True
    customary_sft_weight: ClassVar[float] = 0.0

    def losses(self, pairs: Pairs) -> Tensor:
        return dpo_norm_loss(*pairs, beta=self.beta)

    def rewards(self, pairs: Pairs) -> tuple[Tensor, Tensor]:
        return pairs.per_token().rewards(self.beta)
