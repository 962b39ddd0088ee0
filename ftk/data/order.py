"""The order in which examples are drawn: a function of seed and epoch alone.

Shapes: N examples.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_SHUFFLE, _SOURCE = 0, 1  # apart, so that no two draws use the same stream


def epoch_order(
    num_examples: int,
    *,
    seed: int,
    epoch: int,
    sources_N: NDArray[np.int32] | None = None,
    source_weights: Sequence[float] | None = None,
) -> NDArray[np.int64]:
    """Numbers of the examples of one epoch, as many as there are examples, shuffled.

    With weights, each source gives its share of them: its rows repeat, or rest until a later epoch, and none comes a
    second time before all of that source have come once.
    """
    shuffle = np.random.default_rng([_SHUFFLE, seed, epoch])
    if sources_N is None or source_weights is None:
        return shuffle.permutation(num_examples)
    shares = _shares(num_examples, source_weights)
    drawn = [
        _draw(np.flatnonzero(sources_N == source), share * epoch, share, seed=seed, source=source)
        for source, share in enumerate(shares)
        if share
    ]
    return shuffle.permutation(np.concatenate(drawn))


def _shares(num_examples: int, weights: Sequence[float]) -> list[int]:
    """Whole numbers in the proportion of `weights` with the sum `num_examples`: the largest remainders round up."""
    exact = np.asarray(weights, np.float64) / sum(weights) * num_examples
    shares = np.floor(exact).astype(np.int64)
    for place in np.argsort(shares - exact, kind="stable")[: num_examples - int(shares.sum())]:
        shares[place] += 1
    return [int(share) for share in shares]


def _draw(members: NDArray[np.int64], start: int, number: int, *, seed: int, source: int) -> NDArray[np.int64]:
    """`number` members from place `start` on of an endless row of shuffles of `members`."""
    parts = []
    while number:
        turn, place = divmod(start, len(members))
        part = np.random.default_rng([_SOURCE, seed, source, turn]).permutation(members)[place : place + number]
        parts.append(part)
        start, number = start + len(part), number - len(part)
    return np.concatenate(parts)
