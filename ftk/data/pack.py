"""Filling rows with several documents.

Shapes: N documents.
"""

from bisect import bisect_left, insort
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

MOST_ONE_BY_ONE = 16_384
"""Documents up to which they are packed one by one; measured by benchmarks/packing.py."""


def pack(lengths_N: NDArray[np.int64] | Sequence[int], *, capacity: int) -> list[NDArray[np.int64]]:
    """Which documents share a row, so that no row holds more than `capacity` tokens: best-fit decreasing.

    The longest document goes first, each into the row where it leaves the least room. Documents of one length and rows
    with one amount of room are moved together, so the cost is of their number, not of the documents'.

    Returns:
        For each row the numbers of its documents, longest first.

    Raises:
        ValueError: a document is longer than `capacity`, or empty.

    Source: Ding et al. 2024 (arXiv:2404.10830), algorithm 1.
    """
    lengths_N = np.asarray(lengths_N, np.int64)
    if len(lengths_N) == 0:
        return []
    if lengths_N.min() < 1 or lengths_N.max() > capacity:
        raise ValueError(f"documents of {lengths_N.min()} to {lengths_N.max()} tokens do not fit rows of {capacity}")
    order = np.argsort(-lengths_N, kind="stable")
    assign = _assign_few if len(lengths_N) <= MOST_ONE_BY_ONE else _assign
    rows = assign(lengths_N[order], capacity)
    by_row = np.argsort(rows, kind="stable")
    borders = np.flatnonzero(np.diff(rows[by_row])) + 1
    return np.split(order[by_row], borders)


def _assign_few(descending_N: NDArray[np.int64], capacity: int) -> NDArray[np.int64]:
    """As `_assign`, one document after another: few have few lengths in common, and numbers are quicker than arrays."""
    rows: list[int] = []
    with_room: dict[int, list[int]] = {}  # room left → rows with that much
    rooms: list[int] = []  # its keys that have rows, ascending
    num_rows = 0
    for length in descending_N.tolist():
        place = bisect_left(rooms, length)
        if place < len(rooms):
            room = rooms[place]
            alike = with_room[room]
            row = alike.pop()
            if not alike:
                del rooms[place]
        else:
            room, row = capacity, num_rows
            num_rows += 1
        rows.append(row)
        left = room - length
        if left:
            alike = with_room.setdefault(left, [])
            if not alike:
                insort(rooms, left)
            alike.append(row)
    return np.array(rows, np.int64)


def _assign(descending_N: NDArray[np.int64], capacity: int) -> NDArray[np.int64]:
    """The row of each document, documents given from the longest to the shortest."""
    rows_N = np.empty(len(descending_N), np.int64)
    values, counts = np.unique(-descending_N, return_counts=True)
    with_room: dict[int, NDArray[np.int64]] = {}  # room left → rows with that much
    rooms: list[int] = []  # its keys, ascending
    num_rows = done = 0

    def put(room: int, rows: NDArray[np.int64]) -> None:
        if room in with_room:
            with_room[room] = np.concatenate([with_room[room], rows])
        elif room > 0:
            with_room[room] = rows
            insort(rooms, room)

    for value, count in zip(values.tolist(), counts.tolist(), strict=True):
        length, left = -value, count
        while left:
            place = bisect_left(rooms, length)
            if place < len(rooms):
                room = rooms.pop(place)
                rows = with_room.pop(room)
            else:
                room = capacity
                rows = np.arange(num_rows, num_rows - (-left // (capacity // length)))
                num_rows += len(rows)
            # After one document has gone in, its row is the tightest for the next of that length.
            each = room // length
            full, rest = divmod(min(left, each * len(rows)), each)
            used = rows[:full]
            rows_N[done : done + full * each] = np.repeat(used, each)
            done += full * each
            put(room - each * length, used)
            if rest:
                rows_N[done : done + rest] = rows[full]
                done += rest
                put(room - rest * length, rows[full : full + 1])
            unused = rows[full + (rest > 0) :]
            if len(unused):
                put(room, unused)
            left -= full * each + rest
    return rows_N
