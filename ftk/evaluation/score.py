"""How well a model predicts given answers, or does what an objective asks.

Shapes: B rows, L positions.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ftk.core.mode import evaluating
from ftk.core.types import Batch, Objective, TokenScores
from ftk.numerics.likelihood import perplexity

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
    device = _device_of(model, accelerator)
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


def row_losses(
    model: nn.Module, batches: Iterable[Batch], num_rows: int, accelerator: "Accelerator | None" = None
) -> list[float]:
    """Mean over the answer tokens of each row, in nats a token; NaN where it has none.

    Args:
        model: maps a `Batch` to `TokenScores`; all processes of a group must bring equally many batches.
        batches: this process's share, one document a row, each once over the group.
        num_rows: rows over the group; the batches' `indices` count them from 0.
        accelerator: the group; without one, this process has everything.
    """
    device = _device_of(model, accelerator)
    sums_N2 = torch.zeros(num_rows, 2, dtype=torch.float64, device=device)
    with evaluating(model), torch.no_grad():
        for batch in batches:
            on_device = batch.to(device)
            scores = model(on_device)
            counted_BL = on_device.answers_BL & (on_device.weights_BL > 0)
            nll_B = -torch.where(counted_BL, scores.logps_BL, 0.0).sum(dim=1, dtype=torch.float64)
            sums_B2 = torch.stack([nll_B, counted_BL.sum(dim=1, dtype=torch.float64)], dim=1)
            places = torch.tensor(batch.indices, dtype=torch.long, device=device)
            sums_N2[places] += sums_B2[: len(places)]
    if accelerator is not None:
        sums_N2 = accelerator.reduce(sums_N2, reduction="sum")
    return [nll / count if count else math.nan for nll, count in sums_N2.tolist()]


def objective_metrics(
    model: nn.Module, objective: Objective, batches: Sequence[Batch], accelerator: "Accelerator | None" = None
) -> dict[str, float]:
    """The objective over all rows as if they were one optimizer step: `loss`, and what it tells of itself.

    Statistics are taken over all rows first, so neither depends on how rows fall into batches and onto processes. The
    loss is NaN where nothing has a weight. The model is in evaluation mode meanwhile, and afterwards as it was.

    Args:
        model: maps a `Batch` to `TokenScores`; all processes of a group must bring equally many batches.
        batches: this process's share, each row once over the group.
        accelerator: the group; without one, this process has everything.
    """
    if not batches:
        return {"loss": math.nan}
    device = _device_of(model, accelerator)
    weights_M = [objective.weights(batch) for batch in batches]
    sums: dict[str, Tensor] = {}
    observed: dict[str, Tensor] = {}
    with evaluating(model), torch.no_grad():
        statistics = _statistics(model, objective, batches, device, accelerator)
        for batch in batches:
            on_device = batch.to(device)
            terms = objective.terms(model(on_device), on_device, statistics)
            _add(sums, {name: value.double() for name, value in terms.sums.items()})
            _add(observed, {name: value.double() for name, value in terms.observed.items()})
    weights = [torch.tensor(math.fsum(weight[name] for weight in weights_M), dtype=torch.float64) for name in sums]
    total = torch.stack([value.to(device, torch.float64) for value in (*weights, *sums.values(), *observed.values())])
    values = (accelerator.reduce(total, reduction="sum") if accelerator is not None else total).tolist()
    count = len(sums)
    shares = [value / weight for weight, value in zip(values[:count], values[count : 2 * count], strict=True) if weight]
    figures = objective.figures(dict(zip(observed, values[2 * count :], strict=True)))
    return {"loss": math.fsum(shares) if shares else math.nan, **figures}


def _statistics(
    model: nn.Module,
    objective: Objective,
    batches: Sequence[Batch],
    device: torch.device,
    accelerator: "Accelerator | None",
) -> dict[str, Tensor]:
    """What the terms need to know of all rows; empty where they need nothing."""
    total: dict[str, Tensor] = {}
    for batch in batches:
        for seen in objective.statistics_batches(batch):
            on_device = seen.to(device)
            _add(total, objective.statistics(model(on_device), on_device))
    if accelerator is None:
        return total
    return {name: accelerator.reduce(value, reduction="sum") for name, value in total.items()}


def _add(total: dict[str, Tensor], values: Mapping[str, Tensor]) -> None:
    for name, value in values.items():
        total[name] = total[name] + value if name in total else value


def _device_of(model: nn.Module, accelerator: "Accelerator | None") -> torch.device:
    return accelerator.device if accelerator is not None else next(model.parameters()).device
