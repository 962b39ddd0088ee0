"""Direct preference optimization: the reward is how much more probable a completion became.

Shapes: P pairs.
"""

from collections.abc import Callable
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from ftk.core.config import Section
from ftk.objectives.preference.compared import Pairs
from ftk.objectives.preference.divergences import Divergence, ReverseKl, reverse_kl_score


def dpo_loss(
    chosen_P: Tensor,
    rejected_P: Tensor,
    ref_chosen_P: Tensor,
    ref_rejected_P: Tensor,
    *,
    beta: float,
    label_smoothing: float = 0.0,
    score: Callable[[Tensor], Tensor] = reverse_kl_score,
) -> Tensor:
    """Loss per pair, shape [P], from summed log-probabilities in nats; ln 2 where the policy is the reference.

    Args:
        label_smoothing: probability that chosen and rejected are the wrong way round; the loss is its expectation.
        score: what the log-ratio of policy to reference counts for, by the divergence.

    Source: Rafailov et al. 2023 (arXiv:2305.18290), equation 7; for label smoothing Mitchell 2023, A note on DPO with
    noisy preferences and relationship to IPO; for divergences Wang et al. 2023 (arXiv:2309.16240), theorem 1.
    """
    margin_P = beta * (score(chosen_P - ref_chosen_P) - score(rejected_P - ref_rejected_P))
    loss_P = -F.logsigmoid(margin_P)
    # -logsigmoid(-m) is -logsigmoid(m) + m.
    return loss_P + label_smoothing * margin_P if label_smoothing else loss_P


class Dpo(Section):
    """Direct preference optimization (arXiv:2305.18290)."""

    name: Literal["dpo"] = "dpo"
    """`dpo`: direct preference optimization."""
    beta: Annotated[float, Field(gt=0)] = 0.1
    """How strongly the model is held to the reference; 0.01 to 0.5 is customary. Lower ones let it move further."""
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    """Share of pairs taken to be the wrong way round; above 0 this is conservative DPO. 0.1 suits noisy ratings."""
    divergence: Divergence = ReverseKl()
    """What is measured from the reference: `reverse_kl`, `forward_kl`, `js`, or `{name: alpha, alpha: 0.5}`.

    All but the first keep answers more diverse."""

    rows: ClassVar[Literal["pairs"]] = "pairs"
    needs_reference: ClassVar[bool] = True
    customary_sft_weight: ClassVar[float] = 0.0

    def losses(self, pairs: Pairs) -> Tensor:
        return dpo_loss(
            pairs.chosen_P,
            pairs.rejected_P,
            pairs.ref_chosen_P,
            pairs.ref_rejected_P,
            beta=self.beta,
            label_smoothing=self.label_smoothing,
            score=self.divergence.score,
        )

    def rewards(self, pairs: Pairs) -> tuple[Tensor, Tensor]:
        score = self.divergence.score
        chosen_P = score(pairs.chosen_P - pairs.ref_chosen_P)
        return self.beta * chosen_P, self.beta * score(pairs.rejected_P - pairs.ref_rejected_P)
