"""Which rows go together in a forward pass, and on which process.

Shapes: N rows.
"""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Row = TypeVar("Row")


def deal(
    rows: Sequence[Row], lengths_N: NDArray[np.int64], *, rows_per_batch: int, num_processes: int
) -> list[list[list[Row]]]:
    """Micro-batches of one optimizer step for every process: `result[process][number]` is a list of rows.

    Rows of like length go together, the longest first, so that there is little padding and processes wait little for
    each other. Every process gets the same number of micro-batches; where rows are too few, some are empty.
    """
    order = np.argsort(-lengths_N, kind="stable")
    number_of_each = -(-len(rows) // (rows_per_batch * num_processes))
    groups = np.array_split(order, number_of_each * num_processes)
    return [
        [[rows[place] for place in groups[number * num_processes + process]] for number in range(number_of_each)]
        for process in range(num_processes)
    ]
