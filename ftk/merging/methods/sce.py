"""`sce`: select where models differ, calculate their weights, erase minority signs.

Shapes: M models, C elements of a chunk.
"""

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Generator, Tensor

from ftk.core.config import Section
from ftk.merging.chunks import each_chunk
from ftk.merging.method import NeedsBase, NumModels, Parameter, Parameters, Settings, required
from ftk.merging.order_statistics import Cut, Values, cut_largest
from ftk.merging.task_vectors import TaskVectors, elected_sign, plain_sum

_NEGLIGIBLE = 1e-6
"""As in mergekit: mean squares that sum to less than this give equal weights, and no divisor is smaller."""


def sce(tensors_M: Sequence[Tensor], base: Tensor, *, select_topk: float = 1.0) -> Tensor:
    """The base plus the mean of the selected changes, weighted by their squares, of those with the elected sign.

    Args:
        select_topk: share of the elements on which models differ at all that is kept: those of the largest variance
            over the models. 1 keeps all elements, 0 none.

    Source: Wan et al. 2024 (arXiv:2408.07990), section 3.3. Where the mean squares of all models sum to less than 1e-6,
    as those of careful finetunes do, the weights are equal, as in mergekit.
    """
    vectors = TaskVectors(tensors_M, base)
    selection = _selection(vectors, select_topk)
    if selection is None:
        return base.to(vectors.dtype, copy=True)
    shares_M = _shares(vectors, selection)
    out = torch.empty(vectors.shape, dtype=vectors.dtype)
    flat_out = out.view(-1)

    def merge_chunk(piece: slice) -> None:
        changes_M = selection.changes(vectors, piece)
        flat_out[piece] = _elected_mean(changes_M, shares_M).add_(vectors.base(piece).to(vectors.computed))

    each_chunk(merge_chunk, vectors.num_elements)
    return out


class _Selection:
    """The elements that are kept; all of them without a cut."""

    def __init__(self, cut: Cut | None) -> None:
        self._cut = cut

    def changes(self, vectors: TaskVectors, piece: slice) -> list[Tensor]:
        """Of each model the kept changes of a chunk, others 0."""
        changes_M = [vectors.delta(model, piece).to(vectors.computed) for model in range(len(vectors))]
        if self._cut is not None:
            variances_C = _variances(changes_M).to(vectors.dtype).to(vectors.computed)
            kept_C = self._cut.above(variances_C, piece.start).sign_()
            changes_M = [change.mul_(kept_C) for change in changes_M]
        return changes_M


def _selection(vectors: TaskVectors, select_topk: float) -> _Selection | None:
    """None where no element is kept."""
    if select_topk >= 1:
        return _Selection(None)

    def variances(piece: slice) -> Tensor:
        changes_M = [vectors.delta(model, piece).to(vectors.computed) for model in range(len(vectors))]
        return _variances(changes_M).to(vectors.dtype)

    def count(piece: slice) -> int:
        return int(torch.count_nonzero(variances(piece)))

    num_differing = sum(each_chunk(count, vectors.num_elements))
    num_kept = int(num_differing * select_topk)
    if num_kept <= 0:
        return None
    return _Selection(cut_largest(Values(variances, vectors.num_elements, vectors.dtype), num_kept))


def _variances(changes_M: Sequence[Tensor]) -> Tensor:
    """Of each element over the models; the sum of squares is divided by their number."""
    mean_C = plain_sum(changes_M).div_(len(changes_M))
    total_C = torch.zeros_like(mean_C)
    for change in changes_M:
        difference_C = change - mean_C
        total_C.addcmul_(difference_C, difference_C)
    return total_C.div_(len(changes_M))


def _shares(vectors: TaskVectors, selection: _Selection) -> list[float]:
    """The weight of each model: its share of all squares of kept changes."""

    def squares(piece: slice) -> list[float]:
        return [float(torch.dot(change, change)) for change in selection.changes(vectors, piece)]

    squares_M = [sum(parts) for parts in zip(*each_chunk(squares, vectors.num_elements), strict=True)]
    total = sum(squares_M)
    if total / max(1, vectors.num_elements) < _NEGLIGIBLE:
        return [1 / len(vectors)] * len(vectors)
    return [square / total for square in squares_M]


def _elected_mean(changes_M: Sequence[Tensor], shares_M: Sequence[float]) -> Tensor:
    """The weighted mean of the changes that have the sign of their unweighted sum; they are overwritten."""
    sign_C = elected_sign(changes_M)
    total_C = torch.zeros_like(sign_C)
    divisor_C = torch.zeros_like(total_C)
    for change, share in zip(changes_M, shares_M, strict=True):
        agreeing_C = change.mul_(sign_C).clamp_(min=0)
        total_C.add_(agreeing_C, alpha=share)
        divisor_C.add_(agreeing_C.sign_(), alpha=share)
    return total_C.div_(divisor_C.clamp_(min=_NEGLIGIBLE)).mul_(sign_C)


class Sce(Section):
    """Fuses changes where models differ most, each model by the size of its changes there; no weights to choose."""

    name: Literal["sce"] = "sce"
    """`sce`: select, calculate, erase."""
    select_topk: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Share of the weights on which models differ that is merged: those on which they differ most."""

    per_model: ClassVar[tuple[Parameter, ...]] = ()
    needs_base: ClassVar[NeedsBase] = "required"
    num_models: ClassVar[NumModels] = (1, None)

    def check(self, *, parameters: Parameters, settings: Settings, has_base: bool) -> None:
        """See `Method.check`: there are no numbers but settings with ranges of their own."""

    def merge(
        self,
        tensors: Sequence[Tensor],
        *,
        base: Tensor | None,
        parameters: Parameters,
        settings: Settings,
        generator: Generator,
    ) -> Tensor:
        """See `Method.merge`."""
        return sce(tensors, required(base), select_topk=float(settings["select_topk"]))
