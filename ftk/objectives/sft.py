"""Supervised finetuning: the negative log-likelihood of answers, the prompt at a fraction.

Shapes: B rows, L positions.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from ftk.core.config import Section
from ftk.core.types import Batch, Terms, TokenScores
from ftk.objectives.router import router_statistics, router_term


def weighted_nll(logps_BL: Tensor, weights_BL: Tensor) -> Tensor:
    """Sum over tokens of weight times negative log-likelihood, in nats; a scalar.

    Divided by the sum of the weights, not by a count of tokens, it is a loss in which the prompt has a weight of its
    own. Source: Huerta-Enochian and Ko 2024 (arXiv:2401.13586), section 3.
    """
    return -(logps_BL * weights_BL).sum()


class SftObjective:
    """Weighted next-token likelihood, and where it is asked for the balance of a mixture of experts.

    The term `nll` weighs the sum of the token weights; `router` weighs tokens.
    """

    def __init__(self, *, router_loss_weight: float = 0.0) -> None:
        self.router_loss_weight = router_loss_weight

    def weights(self, batch: Batch) -> dict[str, float]:
        weights = {"nll": float(batch.weights_BL.sum(dtype=torch.float64))}
        if self.router_loss_weight > 0:
            weights["router"] = float(batch.num_tokens)
        return weights

    def statistics_batches(self, batch: Batch) -> Sequence[Batch]:
        return (batch,) if self.router_loss_weight > 0 else ()

    def statistics(self, scores: TokenScores, batch: Batch) -> dict[str, Tensor]:
        return router_statistics(scores.router, batch) if scores.router is not None else {}

    def terms(self, scores: TokenScores, batch: Batch, statistics: Mapping[str, Tensor]) -> Terms:
        sums = {"nll": weighted_nll(scores.logps_BL, batch.weights_BL)}
        if self.router_loss_weight > 0 and scores.router is not None:
            sums["router"] = self.router_loss_weight * router_term(scores.router, batch, statistics)
        learned_BL = batch.answers_BL & (batch.weights_BL > 0)
        return Terms(
            sums=sums,
            observed={
                "num_correct": (scores.correct_BL & learned_BL).sum().detach(),
                "num_answer_tokens": learned_BL.sum(),
            },
        )

    def figures(self, observed: Mapping[str, float]) -> dict[str, float]:
        """`token_accuracy`: share of answer tokens that were the most probable ones."""
        count = observed["num_answer_tokens"]
        return {"token_accuracy": observed["num_correct"] / count} if count else {}


class Sft(Section):
    """Learn to answer: conversations, the answers of which are learned."""

    name: Literal["sft"] = "sft"
    """`sft`: supervised finetuning."""
    prompt_loss_weight: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Loss weight of prompt tokens. 0 trains on answers alone, 1 on everything; 0.1 is customary."""
    train_on: Literal["all", "last", "marked"] = "all"
    """Which answers of a conversation are learned: `all`, the `last` one, or those `marked` in the data.

    A message is marked by `train: true` or a `weight` from 0 to 1, its loss weight. Whatever is said here, an answer
    with `train: false` or `weight: 0` is shown and not learned."""
    reasoning_weight: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Loss weight of the reasoning within answers, relative to the rest of them; 0 shows it and learns what follows.

    Reasoning is a message's `reasoning_content`, or what its content has between `<think>` and `</think>`."""
    router_loss_weight: Annotated[float, Field(ge=0)] | None = None
    """Weight of the balancing loss of a mixture of experts; 0 leaves it out.

    By default the model's own configuration decides, which for most released models leaves it out."""

    @property
    def rows(self) -> Literal["conversations", "pairs", "unpaired"]:
        """What the task learns from."""
        return "conversations"

    @property
    def needs_reference(self) -> bool:
        """Whether log-probabilities of the model as the training began take part."""
        return False

    def objective(self, *, router_loss_weight: float = 0.0) -> SftObjective:
        """The loss; `router_loss_weight` is what the model's configuration asks for, unless the recipe says it."""
        weight = self.router_loss_weight
        return SftObjective(router_loss_weight=router_loss_weight if weight is None else weight)
