"""Identity preference optimization: the margin is led to a finite goal, where DPO would widen it forever.

Shapes: P pairs.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import Field
from torch import Tensor

from ftk.core.config import Section
from ftk.objectives.preference.compared import Pairs


def ipo_loss(
    chosen_P: Tensor, rejected_P: Tensor, ref_chosen_P: Tensor, ref_rejected_P: Tensor, *, beta: float
) -> Tensor:
    """Squared distance of the margin from 1 / (2 beta), shape [P]; from log-probabilities in nats.

    The paper writes tau for beta. Source: Azar et al. 2023 (arXiv:2310.12036), equation 17.
    """
    margin_P = (chosen_P - ref_chosen_P) - (rejected_P - ref_rejected_P)
    return (margin_P - 1 / (2 * beta)) ** 2


class Ipo(Section):
    """Identity preference optimization (arXiv:2310.12036), which overfits less where ratings are sure."""

    name: Literal["ipo"] = "ipo"
    """`ipo`: leads the margin to 1 / (2 beta) and no further."""
    beta: Annotated[float, Field(gt=0)] = 0.1
    """The paper's tau: the goal of the margin is 1 / (2 beta) nats, a token where length-normalized. Higher ones hold
    the model closer to the reference."""
    length_normalized: bool = True
    """Take log-probabilities as means over tokens, as the authors' results do; false sums them, as the equation."""

    rows: ClassVar[Literal["pairs"]] = "pairs"
    needs_reference: ClassVar[bool] = True
    customary_sft_weight: ClassVar[float] = 0.0

    def losses(self, pairs: Pairs) -> Tensor:
        pairs = self._compared(pairs)
        return ipo_loss(pairs.chosen_P, pairs.rejected_P, pairs.ref_chosen_P, pairs.ref_rejected_P, beta=self.beta)

    def rewards(self, pairs: Pairs) -> tuple[Tensor, Tensor]:
        return self._compared(pairs).rewards(self.beta)

    def _compared(self, pairs: Pairs) -> Pairs:
        return pairs.per_token() if self.length_normalized else pairs
