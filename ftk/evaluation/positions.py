"""How well a model predicts by how far into a text it is: perplexity in stretches that double in length.

Shapes: B rows, L positions, K buckets.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ftk.core.mode import evaluating
from ftk.core.types import Batch, TokenScores
from ftk.numerics.likelihood import perplexity

if TYPE_CHECKING:
    from accelerate import Accelerator

FIRST_BUCKET = 128
"""Positions of the first bucket; each further one is as long as all before it together."""
_NUM_BUCKETS = 32
"""More than enough: the last of them begins at a hundred billion."""


def bucket_starts(num: int = _NUM_BUCKETS) -> list[int]:
    """0, 128, 256, 512, ..."""
    return [0, *(FIRST_BUCKET << number for number in range(num - 1))]


def position_sums(scores: TokenScores, batch: Batch) -> Tensor:
    """Over the answer tokens of a batch by bucket, float64 [2, K]: negative log-likelihood in nats, and tokens.

    A token's position is counted within its text.
    """
    counted_BL = batch.answers_BL & (batch.weights_BL > 0)
    starts_K = torch.tensor(bucket_starts(), device=counted_BL.device)
    buckets_N = torch.bucketize(batch.position_ids_BL[counted_BL], starts_K, right=True) - 1
    nll_N = -scores.logps_BL[counted_BL].double()
    sums = torch.zeros((2, _NUM_BUCKETS), dtype=torch.float64, device=counted_BL.device)
    sums[0].index_add_(0, buckets_N, nll_N)
    sums[1].index_add_(0, buckets_N, torch.ones_like(nll_N))
    return sums


def position_metrics(
    model: nn.Module, batches: Iterable[Batch], accelerator: "Accelerator | None" = None
) -> dict[str, float]:
    """`perplexity_from_1024` is that of answer tokens at positions 1024 to 2047; buckets without any are left out.

    Args:
        model: maps a `Batch` to `TokenScores`; all processes of a group must bring equally many batches.
        batches: this process's share, each row once over the group.
        accelerator: the group; without one, this process has everything.
    """
    device = accelerator.device if accelerator is not None else next(model.parameters()).device
    sums = torch.zeros((2, _NUM_BUCKETS), dtype=torch.float64, device=device)
    with evaluating(model), torch.no_grad():
        for batch in batches:
            on_device = batch.to(device)
            sums += position_sums(model(on_device), on_device)
    if accelerator is not None:
        sums = accelerator.reduce(sums, reduction="sum")
    return {
        f"perplexity_from_{start}": perplexity(nll / count)
        for start, nll, count in zip(bucket_starts(), *sums.tolist(), strict=True)
        if count
    }
