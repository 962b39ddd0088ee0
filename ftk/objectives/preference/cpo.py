"""Contrastive preference optimization: DPO against a uniform reference, beside the likelihood of the chosen.

Shapes: P pairs.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from ftk.core.config import Section
from ftk.objectives.preference.compared import Pairs


def cpo_loss(chosen_P: Tensor, rejected_P: Tensor, *, beta: float) -> Tensor:
    """The preference's share of the loss, shape [P], from summed log-probabilities in nats.

    The paper adds the likelihood of chosen completions, which is a term of its own here. Source: Xu et al. 2024
    (arXiv:2401.08417), the loss L_prefer of section 3.
    """
    return -F.logsigmoid(beta * (chosen_P - rejected_P))


class Cpo(Section):
    """Contrastive preference optimization (arXiv:2401.08417): no reference, but the likelihood of chosen answers."""

    name: Literal["cpo"] = "cpo"
    """`cpo`: DPO without a reference, with `sft_weight` 1 unless it is said."""
    beta: Annotated[float, Field(gt=0)] = 0.1
    """Scale of the rewards; 0.1 to 0.5 is customary."""

    rows: ClassVar[Literal["pairs"]] = "pairs"
    needs_reference: ClassVar[bool] = False
    customary_sft_weight: ClassVar[float] = 1.0

    def losses(self, pairs: Pairs) -> Tensor:
        return cpo_loss(pairs.chosen_P, pairs.rejected_P, beta=self.beta)

    def rewards(self, pairs: Pairs) -> tuple[Tensor, Tensor]:
        return pairs.rewards(self.beta)
