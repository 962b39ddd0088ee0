"""How well a model predicts given answers.

Shapes: B rows, L positions.
"""

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ftk.core.mode import evaluating
from ftk.core.types import Batch, TokenScores

if TYPE_CHECKING:
    from accelerate import Accelerator


def answer_sums(scores: TokenScores, batch: Batch) -> Tensor:
    """Over the answer tokens of a batch, float64 [3]: negative log-likelihood in nats, right predictions, tokens."""
    counted_BL = batch.answers_BL & (batch.weights_BL > 0)
    nll = -torch.where(counted_BL, scores.logps_BL, 0.0).sum(dtype=torch.float64)
    num_correct = (scores.correct_BL & counted_BL).sum(dtype=torch.float64)
    return torch.stack([nll, num_correct, counted_BL.sum(dtype=torch.float64)])


def loss_metrics(
    model: nn.Module, batches: Iterable[Batch], accelerator: "Accelerator | None" = None
) -> dict[str, float]:
    """Mean over all answer tokens of all rows: `loss` in nats a token, `perplexity` and `token_accuracy`.

    Tokens weigh the same, however rows fall into batches and batches onto processes; NaN where there is no answer
    token. The model is in evaluation mode meanwhile, and afterwards in the mode in which it was.

    Args:
        model: maps a `Batch` to `TokenScores`; all processes of a group must bring equally many batches.
        batches: this process's share, each row once over the group.
        accelerator: the group; without one, this process has everything.
    """
    device = accelerator.device if accelerator is not None else next(model.parameters()).device
    sums = torch.zeros(3, dtype=torch.float64, device=device)
    with evaluating(model), torch.no_grad():
        for batch in batches:
            on_device = batch.to(device)
            sums += answer_sums(model(on_device), on_device)
    if accelerator is not None:
        sums = accelerator.reduce(sums, reduction="sum")
    nll, num_correct, num_tokens = sums.tolist()
    if num_tokens == 0:
        return {"loss": math.nan, "perplexity": math.nan, "token_accuracy": math.nan}
    loss = nll / num_tokens
    return {"loss": loss, "perplexity": perplexity(loss), "token_accuracy": num_correct / num_tokens}


def perplexity(loss: float) -> float:
    """The number of equally likely tokens that a loss in nats a token stands for; infinite past what a float holds."""
    return math.exp(loss) if loss < 700 else math.inf
