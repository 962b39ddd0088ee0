"""Which rows go together in a forward pass, and on which process.

Shapes: N rows.
"""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Row = TypeVar("Row")


def deal(
    rows: Sequence[Row],
    lengths_N: NDArray[np.int64],
    *,
    rows_per_batch: int | None = None,
    tokens_per_batch: int | None = None,
    num_processes: int,
) -> list[list[list[Row]]]:
    """Micro-batches of one optimizer step for every process: `result[process][number]` is a list of rows.

    Rows of like length go together, the longest first, so that there is little padding and processes wait little for
    each other. A micro-batch holds at most so many rows; or, padding included, at most so many tokens, or as many as
    the longest row has where that is more.
    Every process gets the same number of micro-batches; where rows are too few, some are empty.
    """
    order = np.argsort(-lengths_N, kind="stable")
    if tokens_per_batch is None:
        assert rows_per_batch is not None
        number_of_each = -(-len(rows) // (rows_per_batch * num_processes))
        groups = np.array_split(order, number_of_each * num_processes)
    else:
        borders = _borders(lengths_N[order].tolist(), tokens_per_batch=tokens_per_batch, multiple_of=num_processes)
        groups = np.split(order, borders)
        number_of_each = -(-len(groups) // num_processes)
        groups += [order[:0]] * (number_of_each * num_processes - len(groups))
    return [
        [[rows[place] for place in groups[number * num_processes + process]] for number in range(number_of_each)]
        for process in range(num_processes)
    ]


def _borders(lengths: Sequence[int], *, tokens_per_batch: int, multiple_of: int) -> list[int]:
    """Where descending lengths are cut: into as few groups as fit, for all processes alike, the largest kept small."""
    low, high = lengths[0], max(tokens_per_batch, lengths[0])
    fewest = len(_cut(lengths, high)) + 1
    number = -(-fewest // multiple_of) * multiple_of
    while low < high:
        middle = (low + high) // 2
        if len(_cut(lengths, middle)) < number:
            high = middle
        else:
            low = middle + 1
    return _cut(lengths, low)


def _cut(lengths: Sequence[int], tokens_per_batch: int) -> list[int]:
    """Borders between groups whose first length, the longest, times their rows is at most `tokens_per_batch`."""
    borders: list[int] = []
    start = 0
    for place in range(len(lengths)):
        if place > start and lengths[start] * (place + 1 - start) > tokens_per_batch:
            borders.append(place)
            start = place
    return borders
