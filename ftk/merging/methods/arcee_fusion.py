"""`arcee_fusion`: of another model only the changes that matter most.

Shapes: C elements of a chunk, R rows, N columns.
"""

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from ftk.core.config import Section
from ftk.merging.chunks import each_chunk
from ftk.merging.method import NeedsBase, NumModels, Parameter, Parameters, Settings, required
from ftk.merging.order_statistics import Values, at_ranks, magnitude
from ftk.merging.task_vectors import TaskVectors

_EPSILON = 1e-8
"""Added to probabilities before their logarithms."""


def arcee_fusion(tensor: Tensor, base: Tensor) -> Tensor:
    """The base with the other tensor's values at elements whose importance is high, without anything to choose.

    The importance of an element is the size of its change times the divergence of its row, both rows taken as logits.
    It is high from the median plus one and a half times the distance between the quartiles. The quartiles are exact
    order statistics; mergekit samples them where a tensor has more than a million elements.

    Source: mergekit's documentation of merge methods, "Arcee Fusion"; there is no paper.
    """
    vectors = TaskVectors([tensor], base)
    out = torch.empty(vectors.shape, dtype=vectors.dtype)
    if vectors.num_elements == 0:
        return out
    flat_out = out.view(-1)
    divergences_R = _divergences(vectors)
    threshold = _threshold(vectors, divergences_R)

    def fuse(piece: slice) -> None:
        delta_C = vectors.delta(0, piece).to(vectors.computed)
        kept_C = _importance(delta_C, divergences_R, vectors.row_length, piece) >= threshold
        flat_out[piece] = delta_C.mul_(kept_C).add_(vectors.base(piece).to(vectors.computed))

    each_chunk(fuse, vectors.num_elements, row_length=vectors.row_length)
    return out


def _divergences(vectors: TaskVectors) -> Tensor:
    """Of each row the Kullback-Leibler divergence of the other model's softmax from the base's."""

    def divergences(piece: slice) -> Tensor:
        base_RN = vectors.base(piece).to(vectors.computed).view(-1, vectors.row_length)
        other_RN = vectors.model(0, piece).to(vectors.computed).view(-1, vectors.row_length)
        p_RN = F.softmax(other_RN, dim=-1).add_(_EPSILON)
        q_RN = F.softmax(base_RN, dim=-1).add_(_EPSILON)
        return (p_RN * torch.log_(p_RN / q_RN)).sum(-1)

    found = each_chunk(divergences, vectors.num_elements, row_length=vectors.row_length)
    return torch.cat(found)


def _importance(delta_C: Tensor, divergences_R: Tensor, row_length: int, piece: slice) -> Tensor:
    rows = slice(piece.start // row_length, piece.stop // row_length)
    return (delta_C.abs().view(-1, row_length) * divergences_R[rows, None]).view(-1)


def _threshold(vectors: TaskVectors, divergences_R: Tensor) -> float:
    """The median of the importances plus one and a half times the distance between their quartiles."""

    def importance(piece: slice) -> Tensor:
        delta_C = vectors.delta(0, piece).to(vectors.computed)
        return _importance(delta_C, divergences_R, vectors.row_length, piece)

    values = Values(importance, vectors.num_elements, vectors.computed, row_length=vectors.row_length)
    last = vectors.num_elements - 1
    ranked = at_ranks(values, [int(quarter / 4 * last) for quarter in (1, 2, 3)])
    lower, median, upper = (magnitude(one.key, vectors.computed) for one in ranked)
    return median + 1.5 * (upper - lower)


class ArceeFusion(Section):
    """The base with those of another model's changes that matter most; it has nothing to choose."""

    name: Literal["arcee_fusion"] = "arcee_fusion"
    """`arcee_fusion`: changes of high importance."""

    per_model: ClassVar[tuple[Parameter, ...]] = ()
    needs_base: ClassVar[NeedsBase] = "required"
    num_models: ClassVar[NumModels] = (1, 1)

    def check(self, *, parameters: Parameters, settings: Settings, has_base: bool) -> None:
        """See `Method.check`: there are no numbers."""

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
        return arcee_fusion(tensors[0], required(base))
