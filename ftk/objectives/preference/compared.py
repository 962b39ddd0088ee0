"""What preference losses look at: completions as sums of log-probabilities, beside those of the reference.

Shapes: P pairs, N completions by themselves.
"""

from typing import Literal, NamedTuple, Protocol

from torch import Tensor

Rows = Literal["conversations", "pairs", "unpaired"]
"""What a task learns from: answers, pairs of a better and a worse completion, or completions with a verdict each."""


class Pairs(NamedTuple):
    """Chosen and rejected completions of the same prompts. Sums over tokens, in nats."""

    chosen_P: Tensor
    rejected_P: Tensor
    ref_chosen_P: Tensor
    """Of the model as the training began, without gradient; 0 for a loss that needs no reference."""
    ref_rejected_P: Tensor
    chosen_lengths_P: Tensor
    """Tokens of the completion, its end of turn included."""
    rejected_lengths_P: Tensor

    def per_token(self) -> "Pairs":
        """The same as means over the tokens of each completion."""
        chosen_P, rejected_P, ref_chosen_P, ref_rejected_P, chosen_lengths_P, rejected_lengths_P = self
        return Pairs(
            chosen_P / chosen_lengths_P,
            rejected_P / rejected_lengths_P,
            ref_chosen_P / chosen_lengths_P,
            ref_rejected_P / rejected_lengths_P,
            chosen_lengths_P,
            rejected_lengths_P,
        )

    def rewards(self, beta: float) -> tuple[Tensor, Tensor]:
        """Of chosen and rejected, beta times how much more probable they became; what most losses compare."""
        return beta * (self.chosen_P - self.ref_chosen_P), beta * (self.rejected_P - self.ref_rejected_P)


class Singles(NamedTuple):
    """Completions by themselves, each with a verdict. Sums over tokens, in nats."""

    logps_N: Tensor
    ref_logps_N: Tensor
    lengths_N: Tensor
    desirable_N: Tensor
    """bool"""
    baseline: Tensor
    """Mean over the whole optimizer step of log-probability minus the reference's, of completions to other prompts."""


class PairLoss(Protocol):
    """The settings of a loss on pairs, and what they make of them."""

    @property
    def rows(self) -> Literal["pairs"]: ...

    @property
    def needs_reference(self) -> bool:
        """Whether log-probabilities of the model as the training began take part."""

    @property
    def customary_sft_weight(self) -> float:
        """Weight of the likelihood of chosen completions that belongs to the loss by its paper."""

    def losses(self, pairs: Pairs) -> Tensor:
        """Loss per pair, shape [P]."""

    def rewards(self, pairs: Pairs) -> tuple[Tensor, Tensor]:
        """What the loss compares, of chosen and rejected; each of shape [P]."""


class SingleLoss(Protocol):
    """The settings of a loss on completions by themselves, and what they make of them."""

    @property
    def rows(self) -> Literal["unpaired"]: ...

    @property
    def needs_reference(self) -> bool: ...

    @property
    def customary_sft_weight(self) -> float: ...

    def losses(self, singles: Singles) -> Tensor:
        """Loss per completion, shape [N]."""

    def rewards(self, singles: Singles) -> Tensor:
        """The reward of each completion, shape [N]."""
