"""Filling rows with documents."""

import time

import numpy as np
import pytest
from numpy.typing import NDArray

from ftk.data.pack import pack


def best_fit_decreasing(lengths: NDArray[np.int64], capacity: int) -> list[int]:
    """Room left in each row, by the textbook: one document at a time."""
    rooms: list[int] = []
    for length in sorted(lengths.tolist(), reverse=True):
        fitting = [room for room in rooms if room >= length]
        if fitting:
            rooms[rooms.index(min(fitting))] -= length
        else:
            rooms.append(capacity - length)
    return sorted(rooms)


@pytest.mark.parametrize("one_by_one", [True, False])
@pytest.mark.parametrize("seed", range(20))
def test_equals_the_textbook(seed: int, one_by_one: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ftk.data.pack.MOST_ONE_BY_ONE", 1000 if one_by_one else 0)
    random = np.random.default_rng(seed)
    capacity = int(random.integers(5, 60))
    lengths = random.integers(1, capacity + 1, size=int(random.integers(1, 200)))
    rows = pack(lengths, capacity=capacity)
    assert sorted(capacity - int(lengths[row].sum()) for row in rows) == best_fit_decreasing(lengths, capacity)
    assert sorted(np.concatenate(rows).tolist()) == list(range(len(lengths)))


def test_by_hand() -> None:
    # 6 takes 4, 5 takes 3 and 2: two full rows.
    assert [row.tolist() for row in pack([2, 6, 3, 5, 4], capacity=10)] == [[1, 4], [3, 2, 0]]
    assert pack([], capacity=10) == []


def test_what_does_not_fit_is_an_error() -> None:
    for lengths in ([11], [0, 3]):
        with pytest.raises(ValueError, match="do not fit"):
            pack(lengths, capacity=10)


def test_is_fast_and_tight() -> None:
    random = np.random.default_rng(0)
    lengths = np.clip(random.lognormal(5.5, 0.9, 200_000).astype(np.int64), 1, 2048)
    start = time.process_time()
    rows = pack(lengths, capacity=2048)
    seconds = time.process_time() - start
    assert len(rows) <= 1.005 * np.ceil(lengths.sum() / 2048)
    # Near two million rows a second on one core; a tenth of that here, because the machine may be busy.
    assert 200_000 / seconds > 200_000
