"""What each model changed of its base, and how the changes are summed back onto it.

Shapes: M models, C elements of a chunk.
"""

from collections.abc import Sequence
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from ftk.merging.chunks import computed, each_chunk, last_length, promoted
from ftk.merging.method import check_weights
from ftk.merging.order_statistics import Values


class Sparsifier(Protocol):
    """Which elements of one model's changes are kept, and at what scale; each chunk by itself."""

    def __call__(self, delta_C: Tensor, piece: slice) -> Tensor:
        """The kept changes in float32 (float64 stays), others 0."""
        ...


class TaskVectors:
    """The differences of models to their base, chunk by chunk.

    They are in the widest dtype among the inputs, as a checkpoint of differences would be. That loses nothing for
    finetuned models: the difference of two numbers within a factor of two of each other is exact (Sterbenz 1974). It
    makes thresholds of half precision cheap, and equal to those of tools that compute in half precision throughout.
    """

    def __init__(self, tensors_M: Sequence[Tensor], base: Tensor) -> None:
        self.dtype = promoted((*tensors_M, base))
        self.computed = computed(self.dtype)
        self.shape = base.shape
        self.num_elements = base.numel()
        self.row_length = last_length(base)
        self._base = base.reshape(-1)
        self._tensors_M = [tensor.reshape(-1) for tensor in tensors_M]

    def __len__(self) -> int:
        return len(self._tensors_M)

    def base(self, piece: slice) -> Tensor:
        """A chunk of the base, in the dtype of the differences."""
        return self._base[piece].to(self.dtype)

    def model(self, model: int, piece: slice) -> Tensor:
        """A chunk of a model."""
        return self._tensors_M[model][piece].to(self.dtype)

    def delta(self, model: int, piece: slice) -> Tensor:
        """A chunk of a model's difference."""
        return self.model(model, piece) - self.base(piece)

    def values(self, model: int) -> Values:
        """All of a model's difference, as order statistics take it."""
        return Values(partial(self.delta, model), self.num_elements, self.dtype)

    def merge(
        self,
        sparsifiers_M: Sequence[Sparsifier],
        *,
        weights_M: Sequence[float],
        elect_signs: bool,
        normalize: bool,
        scale: float,
        row_length: int = 1,
    ) -> Tensor:
        """The base plus `scale` times the weighted sum of the sparsified differences.

        Args:
            elect_signs: of each element only the models count whose weighted difference has the sign of their sum.
            normalize: the sum is divided by the weights that counted.
            row_length: chunks hold whole rows of this length, where a sparsifier looks at rows.

        Raises:
            MergeError: the weights sum to zero and are to be divided by.
        """
        if normalize:
            check_weights(weights_M)
        out = torch.empty(self.shape, dtype=self.dtype)
        flat_out = out.view(-1)

        def merge_chunk(piece: slice) -> None:
            changes_M = [
                sparsify(self.delta(model, piece), piece).mul_(weight)
                for model, (sparsify, weight) in enumerate(zip(sparsifiers_M, weights_M, strict=True))
            ]
            if elect_signs:
                change = elected_sum(changes_M, weights_M=weights_M, normalize=normalize)
            else:
                change = plain_sum(changes_M)
                if normalize:
                    change.div_(sum(weights_M))
            # The change is ours to write to; the base may be the caller's memory.
            flat_out[piece] = change.mul_(scale).add_(self.base(piece).to(self.computed))

        each_chunk(merge_chunk, self.num_elements, row_length=row_length)
        return out


def plain_sum(changes_M: Sequence[Tensor]) -> Tensor:
    """The sum over models, in memory of its own."""
    total = changes_M[0].clone()
    for change in changes_M[1:]:
        total.add_(change)
    return total


def elected_sign(changes_M: Sequence[Tensor]) -> Tensor:
    """For each element the sign of the sum, 1 or -1; 1 where it cancels."""
    total = plain_sum(changes_M)
    # A sum that cancels is +0.
    return torch.copysign(torch.ones_like(total), total)


def elected_sum(changes_M: Sequence[Tensor], *, weights_M: Sequence[float], normalize: bool) -> Tensor:
    """For each element the sum over those models whose change has the sign of the sum over all.

    Args:
        changes_M: weighted changes; they are overwritten.
        normalize: the sum is divided by the weights of the models that counted; a change of 0 does not count.

    Source: Yadav et al. 2023 (arXiv:2306.01708), section 4, "Elect" and "Disjoint Merge"; with weights as mergekit has
    them, which elects by the weighted sum.
    """
    sign = elected_sign(changes_M)
    total = torch.zeros_like(sign)
    divisor = torch.zeros_like(total) if normalize else None
    # Clamping and signs of floats, as operations on booleans are ten times slower on a CPU.
    for change, weight in zip(changes_M, weights_M, strict=True):
        agreeing = change.mul_(sign).clamp_(min=0)
        total.add_(agreeing)
        if divisor is not None:
            divisor.add_(agreeing.sign_(), alpha=weight)
    if divisor is not None:
        if min(weights_M) > 0:
            divisor.clamp_(min=min(weights_M))
        else:
            divisor.masked_fill_(divisor == 0, 1)
        total.div_(divisor)
    return total.mul_(sign)
