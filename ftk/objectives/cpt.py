"""Continued pretraining: the likelihood of plain text, every token of which is learned."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from ftk.core.config import Section
from ftk.core.types import NUM_BYTES, Batch, Terms, TokenScores
from ftk.numerics.likelihood import bits_per_byte, perplexity
from ftk.objectives.sft import SftObjective, weighted_nll


class CptObjective:
    """The likelihood of each token, measured by the token and by the byte; the terms are those of `SftObjective`."""

    def __init__(self, *, router_loss_weight: float = 0.0) -> None:
        self._likelihood = SftObjective(router_loss_weight=router_loss_weight)

    def weights(self, batch: Batch) -> dict[str, float]:
        return self._likelihood.weights(batch)

    def statistics_batches(self, batch: Batch) -> Sequence[Batch]:
        return self._likelihood.statistics_batches(batch)

    def statistics(self, scores: TokenScores, batch: Batch) -> dict[str, Tensor]:
        return self._likelihood.statistics(scores, batch)

    def terms(self, scores: TokenScores, batch: Batch, statistics: Mapping[str, Tensor]) -> Terms:
        terms = self._likelihood.terms(scores, batch, statistics)
        # A byte is a byte, however little its token weighs in the loss.
        return Terms(
            sums=terms.sums,
            observed={
                **terms.observed,
                "num_nats": weighted_nll(scores.logps_BL.detach(), batch.answers_BL),
                "num_bytes": batch.columns[NUM_BYTES].sum(dtype=torch.float64),
            },
        )

    def figures(self, observed: Mapping[str, float]) -> dict[str, float]:
        """`perplexity` a token, `bits_per_byte` of text, and `token_accuracy`; the end of a text is a token, too."""
        count = observed["num_answer_tokens"]
        if not count:
            return {}
        return {
            "perplexity": perplexity(observed["num_nats"] / count),
            "bits_per_byte": bits_per_byte(observed["num_nats"], observed["num_bytes"]),
            **self._likelihood.figures(observed),
        }


class Cpt(Section):
    """Learn a domain from plain text: documents, source trees, or rows with a text."""

    name: Literal["cpt"] = "cpt"
    """`cpt`: continued pretraining."""
    router_loss_weight: Annotated[float, Field(ge=0)] | None = None
    """Weight of the balancing loss of a mixture of experts; 0 leaves it out.

    By default the model's own configuration decides, which for most released models leaves it out."""

    @property
    def rows(self) -> Literal["texts"]:
        """What the task learns from."""
        return "texts"

    @property
    def needs_reference(self) -> bool:
        """Whether log-probabilities of the model as the training began take part."""
        return False

    def objective(self, *, router_loss_weight: float = 0.0) -> CptObjective:
        """The loss; `router_loss_weight` is what the model's configuration asks for, unless the recipe says it."""
        weight = self.router_loss_weight
        return CptObjective(router_loss_weight=router_loss_weight if weight is None else weight)
