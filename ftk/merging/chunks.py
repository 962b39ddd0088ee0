"""Tensors of any size in pieces that stay in the cache, so that no float32 copy of a whole tensor is made.

Shapes: C elements of a chunk.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import reduce
from typing import TypeVar

import torch
from torch import Tensor

Result = TypeVar("Result")
CHUNK = 2**18
"""Elements: three models' pieces in float32 are 3 MB. Of 2^16 the calls cost more than the work."""


def chunks(num_elements: int, *, row_length: int = 1, size: int = CHUNK) -> Iterator[slice]:
    """Slices of a flat tensor that cover it in order; each holds whole rows, one at least."""
    step = max(1, size // max(1, row_length)) * max(1, row_length)
    for start in range(0, num_elements, step):
        yield slice(start, min(start + step, num_elements))


def each_chunk(
    work: Callable[[slice], Result], num_elements: int, *, row_length: int = 1, size: int = CHUNK
) -> list[Result]:
    """What `work` returns of each chunk, in order; as many at a time as torch has threads.

    A thread works on a chunk alone. Where torch shares out every operation among its threads, each of many small ones
    waits for the slowest thread: on two cores with other work that took up to ten times as long.
    """
    pieces = list(chunks(num_elements, row_length=row_length, size=size))
    num_threads = min(torch.get_num_threads(), len(pieces))
    if num_threads <= 1:
        return [work(piece) for piece in pieces]
    # The number of threads is a setting of the thread that sets it: the caller's stays.
    with ThreadPoolExecutor(num_threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        return list(pool.map(work, pieces))


def promoted(tensors: Sequence[Tensor]) -> torch.dtype:
    """The narrowest dtype that holds the values of all tensors."""
    return reduce(torch.promote_types, (tensor.dtype for tensor in tensors))


def computed(dtype: torch.dtype) -> torch.dtype:
    """float32 for half precision; float64 stays."""
    return torch.promote_types(dtype, torch.float32)


def last_length(tensor: Tensor) -> int:
    """Elements of a row along the last dimension; 1 of a scalar."""
    return tensor.shape[-1] if tensor.ndim else 1
