"""Which changes of a model are kept before changes are summed: the largest, those in between, or some at random.

Shapes: C elements of a chunk, R rows of it, N columns.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator, Tensor

from ftk.merging.chunks import computed, each_chunk
from ftk.merging.method import MergeError
from ftk.merging.order_statistics import Cut, cut_largest, cut_smallest, magnitude_keys
from ftk.merging.task_vectors import Sparsifier, TaskVectors

_NEGLIGIBLE = 1e-7
"""Sums of magnitudes below this are not rescaled to."""


@dataclass(frozen=True)
class Everything:
    """All changes."""

    def __call__(self, delta_C: Tensor, piece: slice) -> Tensor:
        return delta_C.to(computed(delta_C.dtype), copy=True)


@dataclass(frozen=True)
class Nothing:
    """None of them."""

    def __call__(self, delta_C: Tensor, piece: slice) -> Tensor:
        return torch.zeros_like(delta_C, dtype=computed(delta_C.dtype))


@dataclass(frozen=True)
class Between:
    """Changes whose magnitude is above one cut, and where there is another not above that."""

    lower: Cut
    upper: Cut | None = None
    factor: float = 1.0

    def __call__(self, delta_C: Tensor, piece: slice) -> Tensor:
        values_C = delta_C.to(computed(delta_C.dtype))
        kept_C = self.lower.above(values_C, piece.start)
        if self.upper is not None:
            kept_C.sub_(self.upper.above(values_C, piece.start))
        return kept_C.mul_(self.factor) if self.factor != 1 else kept_C


class Bernoulli:
    """Each change with the same probability, by draws of 32 bits from a stream of its own."""

    def __init__(self, density: float, *, rescale: bool, generator: Generator) -> None:
        # In whole numbers, as a comparison with a float would round the draws.
        self._bound = min(round(density * 2.0**32 - 2.0**31), 2**31 - 1)
        self._factor = 1 / density if rescale else 1.0
        self._draws = _Draws(generator)

    def __call__(self, delta_C: Tensor, piece: slice) -> Tensor:
        kept_C = self._draws.at(piece) < self._bound
        return delta_C.to(computed(delta_C.dtype)).mul(kept_C).mul_(self._factor)


class MagnitudePruned:
    """Each change with a probability that rises with the rank of its magnitude in its row.

    The chunks must hold whole rows.
    """

    def __init__(self, density: float, epsilon: float, *, row_length: int, rescale: bool, generator: Generator) -> None:
        self._density = density
        self._epsilon = epsilon
        self._row_length = row_length
        self._rescale = rescale
        self._draws = _Draws(generator)

    def __call__(self, delta_C: Tensor, piece: slice) -> Tensor:
        values_C = delta_C.to(computed(delta_C.dtype), copy=True)
        chances_C = kept_chances(
            delta_C.view(-1, self._row_length), density=self._density, epsilon=self._epsilon, dtype=values_C.dtype
        ).view(-1)
        draws_C = self._draws.at(piece).to(values_C.dtype).mul_(2.0**-32).add_(0.5)
        values_C.mul_(draws_C < chances_C)
        return values_C.div_(chances_C) if self._rescale else values_C


class _Draws:
    """Whole numbers, evenly distributed over all of 32 bits with their sign; a stream of its own for each chunk.

    numpy's SFC64 makes them nine times faster than torch draws booleans, and the same on every machine.
    """

    def __init__(self, generator: Generator) -> None:
        self._seed = int(torch.randint(2**62, (1,), generator=generator))

    def at(self, piece: slice) -> Tensor:
        """As many as the chunk has elements."""
        stream = np.random.SFC64(np.random.SeedSequence([self._seed, piece.start]))
        count = piece.stop - piece.start
        return torch.from_numpy(np.asarray(stream.random_raw((count + 1) // 2)).view(np.int32))[:count]


def kept_chances(values_RN: Tensor, *, density: float, epsilon: float, dtype: torch.dtype) -> Tensor:
    """How probably each value is kept: from density - epsilon for the smallest of its row to density + epsilon.

    Source: Deep et al. 2024 (arXiv:2406.11617), section 3.1. The paper's epsilon is the width of the window; here, as
    in mergekit, it is half of it.
    """
    num_columns = values_RN.shape[1]
    if num_columns == 1:
        return torch.full(values_RN.shape, density, dtype=dtype)
    order_RN = magnitude_keys(values_RN).argsort(dim=1, stable=True)
    steps_N = torch.arange(num_columns, dtype=dtype) / (num_columns - 1) * (2 * epsilon) + (density - epsilon)
    return torch.empty(values_RN.shape, dtype=dtype).scatter_(1, order_RN, steps_N.expand_as(order_RN))


def largest(vectors: TaskVectors, densities_M: Sequence[float], *, rescale: bool = False) -> list[Sparsifier]:
    """Of each model the share `density` of changes with the largest magnitudes, at least one unless density is 0.

    Args:
        rescale: kept changes are enlarged so that their magnitudes sum to as much as before.

    Source: Yadav et al. 2023 (arXiv:2306.01708), section 4, "Trim".
    """
    found: list[Sparsifier] = []
    for model, density in enumerate(densities_M):
        if density <= 0 or vectors.num_elements == 0:
            found.append(Nothing())
        elif density >= 1:
            found.append(Everything())
        else:
            num_kept = max(1, int(density * vectors.num_elements))
            cut = cut_largest(vectors.values(model), num_kept)
            found.append(_rescaled(vectors, model, Between(cut), rescale=rescale))
    return found


def without_outliers(
    vectors: TaskVectors, densities_M: Sequence[float], gammas_M: Sequence[float], *, rescale: bool = False
) -> list[Sparsifier]:
    """Of each model the share `density` of changes below the share `gamma` of the largest.

    Where both together exceed the whole, fewer outliers are left out.

    Source: Davari and Belilovsky 2023 (arXiv:2312.06795), section 3.
    """
    found: list[Sparsifier] = []
    for model, (density, gamma) in enumerate(zip(densities_M, gammas_M, strict=True)):
        num_kept = int(density * vectors.num_elements)
        if density >= 1:
            found.append(Everything())
        elif num_kept <= 0:
            found.append(Nothing())
        else:
            num_below = max(0, vectors.num_elements - num_kept - int(gamma * vectors.num_elements))
            ranks = (num_below, num_below + num_kept)
            lower, upper = cut_smallest(vectors.values(model), ranks)
            found.append(_rescaled(vectors, model, Between(lower, upper), rescale=rescale))
    return found


def at_random(densities_M: Sequence[float], *, rescale: bool, generator: Generator) -> list[Sparsifier]:
    """Of each model every change with probability `density`.

    Args:
        rescale: kept changes are divided by the density, so that their expectation stays.

    Source: Yu et al. 2023 (arXiv:2311.03099), equation 1, whose drop rate is 1 - density.
    """
    found: list[Sparsifier] = []
    for density in densities_M:
        if density >= 1:
            found.append(Everything())
        elif density <= 0:
            found.append(Nothing())
        else:
            found.append(Bernoulli(density, rescale=rescale, generator=generator))
    return found


def by_magnitude_at_random(
    densities_M: Sequence[float], epsilons_M: Sequence[float], *, row_length: int, rescale: bool, generator: Generator
) -> list[Sparsifier]:
    """Of each model every change with the probability that `kept_chances` gives it.

    Args:
        rescale: kept changes are divided by their probability, so that their expectation stays.

    Raises:
        MergeError: a probability would leave (0, 1).
    """
    check_epsilons(densities_M, epsilons_M)
    found: list[Sparsifier] = []
    for density, epsilon in zip(densities_M, epsilons_M, strict=True):
        if density >= 1:
            found.append(Everything())
        elif density <= 0:
            found.append(Nothing())
        else:
            one = MagnitudePruned(density, epsilon, row_length=row_length, rescale=rescale, generator=generator)
            found.append(one)
    return found


def check_epsilons(densities_M: Sequence[float], epsilons_M: Sequence[float]) -> None:
    """
    Raises:
        MergeError: density - epsilon or density + epsilon is no probability above 0 and below 1.
    """
    for number, (density, epsilon) in enumerate(zip(densities_M, epsilons_M, strict=True), start=1):
        if 0 < density < 1 and not 0 < density - epsilon <= density + epsilon < 1:
            raise MergeError(
                f"density {density:g} and epsilon {epsilon:g} of model {number} give probabilities from "
                f"{density - epsilon:g} to {density + epsilon:g}, expected them above 0 and below 1. Lower epsilon "
                f"below {min(density, 1 - density):g}"
            )


def _rescaled(vectors: TaskVectors, model: int, kept: Between, *, rescale: bool) -> Between:
    if not rescale:
        return kept

    def sums(piece: slice) -> tuple[float, float]:
        delta_C = vectors.delta(model, piece)
        return float(delta_C.to(vectors.computed).abs().sum()), float(kept(delta_C, piece).abs().sum())

    before, after = (sum(parts) for parts in zip(*each_chunk(sums, vectors.num_elements), strict=True))
    if before < _NEGLIGIBLE or after < _NEGLIGIBLE:
        return kept
    return Between(kept.lower, kept.upper, factor=before / after)
