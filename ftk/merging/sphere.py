"""Geometry of tensors as directions: lengths, angles, and the weights that walk along the sphere between them.

All that lies between vectors on a sphere is a sum of them with weights that follow from their inner products. So a
tensor is read twice, once for the products and once for the sum, and the geometry itself happens in a few numbers in
float64.

Shapes: M vectors, R rows, N columns.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from ftk.merging.chunks import computed, each_chunk, promoted
from ftk.merging.task_vectors import TaskVectors

Pieces = Callable[[slice], Tensor]
"""A vector by its chunks, in the dtype that is computed with."""


def model_vectors(tensors_M: Sequence[Tensor], base: Tensor | None) -> list[Pieces]:
    """The tensors as vectors, or where there is a base their differences to it."""
    if base is None:
        dtype = computed(promoted(tensors_M))
        return [partial(_chunk, tensor.reshape(-1), dtype) for tensor in tensors_M]
    deltas = TaskVectors(tensors_M, base)
    return [partial(_delta, deltas, model) for model in range(len(tensors_M))]


def _chunk(flat: Tensor, dtype: torch.dtype, piece: slice) -> Tensor:
    return flat[piece].to(dtype)


def _delta(deltas: TaskVectors, model: int, piece: slice) -> Tensor:
    return deltas.delta(model, piece).to(deltas.computed)


def inner_products(vectors_M: Sequence[Pieces], num_elements: int) -> Tensor:
    """Of each vector with each, float64 [M, M]; within chunks summed in float32 (float64 stays)."""
    num_vectors = len(vectors_M)

    def products(piece: slice) -> Tensor:
        found = torch.zeros(num_vectors, num_vectors, dtype=torch.float64)
        chunks_M = [vector(piece) for vector in vectors_M]
        for i, left in enumerate(chunks_M):
            for j, right in enumerate(chunks_M[: i + 1]):
                found[i, j] = found[j, i] = torch.dot(left, right)
        return found

    return sum(each_chunk(products, num_elements), torch.zeros(num_vectors, num_vectors, dtype=torch.float64))


def inner_products_by_row(vectors_M: Sequence[Pieces], num_rows: int, num_columns: int, *, dim: int) -> Tensor:
    """The same for matrices, of rows (`dim` 1) as float64 [M, M, R, 1] or of columns (`dim` 0) as [M, M, 1, N]."""
    num_vectors = len(vectors_M)

    def products(piece: slice) -> Tensor:
        chunks_M = torch.stack([vector(piece).view(-1, num_columns) for vector in vectors_M])
        pairs = [(chunks_M * chunk).sum(dim + 1, keepdim=True) for chunk in chunks_M]
        return torch.stack(pairs).to(torch.float64)

    found = each_chunk(products, num_rows * num_columns, row_length=num_columns)
    if dim == 1:
        return torch.cat(found, dim=2)
    return sum(found, torch.zeros(num_vectors, num_vectors, 1, num_columns, dtype=torch.float64))


def slerp_weights(cosine: Tensor, t: float, *, linear: Tensor) -> tuple[Tensor, Tensor]:
    """The weights of two vectors at the fraction `t` of the way between their directions; same shape as `cosine`.

    Args:
        cosine: of the angle between them.
        linear: true where they are taken to lie on a line, on which the weights are 1 - t and t.

    Source: Shoemake 1985 (doi:10.1145/325334.325242), section 3.3.
    """
    angle = torch.acos(torch.where(linear, 0, cosine))
    sine = torch.sin(angle)
    first = torch.where(linear, 1 - t, torch.sin((1 - t) * angle) / sine)
    second = torch.where(linear, t, torch.sin(t * angle) / sine)
    return first, second


def karcher_weights(cosines_MM: Tensor, shares_M: Sequence[float], *, max_iterations: int, tolerance: float) -> Tensor:
    """Weights of unit vectors whose sum is their weighted mean on the sphere, float64 [M].

    The mean is a sum of the vectors at every step, so that the iteration runs on its weights alone.

    Args:
        cosines_MM: their inner products.
        shares_M: how much each counts; they sum to 1.
        max_iterations: steps at most.
        tolerance: a step shorter than this, in radians, ends the iteration; closer vectors than this do not pull.

    Source: Karcher 1977 (doi:10.1002/cpa.3160300502); Afsari et al. 2013 (arXiv:1201.0925), equation 1.1 with step 1.
    """
    cosines_MM = cosines_MM.to(torch.float64)
    shares = torch.tensor(shares_M, dtype=torch.float64)

    def length(weights: Tensor) -> float:
        return math.sqrt(max(0.0, float(weights @ cosines_MM @ weights)))

    mean = shares / length(shares) if length(shares) >= tolerance else torch.eye(len(shares), dtype=torch.float64)[0]
    for _ in range(max_iterations):
        to_mean = (cosines_MM @ mean).clamp(-1, 1)
        angles = torch.acos(to_mean)
        # Opposite to the mean, every direction is as short as the others: such a vector cannot pull either.
        pulls = (angles >= tolerance) & (math.pi - angles >= tolerance)
        strength = torch.where(pulls, shares * angles / torch.where(pulls, angles.sin(), 1), 0)
        step = strength - (strength @ to_mean) * mean
        size = length(step)
        if size < tolerance:
            break
        mean = math.cos(size) * mean + math.sin(size) / size * step
        mean = mean / length(mean)
    return mean
