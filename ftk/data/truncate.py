"""Rows that are too long."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ftk.data.render import Rendered

Truncation = Literal["right", "left", "drop", "error"]


def cut(row: Rendered, *, truncation: Truncation, max_length: int, bos_token_id: int | None) -> Rendered | None:
    """The row at its length; None where no learned token of an answer is left. Under `error` it stays as it is.

    Completions of one prompt keep the same prompt. Its length is that with the longest completion.
    """
    if row.length > max_length:
        if truncation == "drop":
            return None
        if truncation == "right":
            row = truncate_right(row, max_length=max_length)
        elif truncation == "left":
            row = truncate_left(row, max_length=max_length, bos_token_id=bos_token_id)
        if not _teaches(row):
            return None
    return _with_room_for_aside(row, max_length=max_length)


def loses_end(row: Rendered, *, max_length: int) -> bool:
    """Whether cutting at the right takes the end of turn of a learned answer that stays in part."""
    # The end-of-turn token is the last one of an answer: it is lost where the cut goes through an answer.
    answers_L = row.answers_L if row.branches_L is None else row.answers_L & (row.branches_L > 0)
    first_lost = np.flatnonzero(_places(row) == max_length)
    return bool((answers_L[first_lost] & answers_L[first_lost - 1]).any())


def truncate_right(row: Rendered, *, max_length: int) -> Rendered:
    """The first `max_length` tokens. An answer that is cut through no longer teaches its end of turn."""
    return _select(row, np.flatnonzero(_places(row) < max_length))


def truncate_left(row: Rendered, *, max_length: int, bos_token_id: int | None) -> Rendered:
    """The last `max_length` tokens, after the BOS where the row begins with one.

    Where completions share a prompt, only that is cut, so that both sides keep the same one and each its beginning:
    a completion that is too long by itself leaves nothing.
    """
    excess = row.length - max_length
    if row.branches_L is not None and excess >= (row.branches_L == 0).sum():
        return _select(row, np.arange(0))
    keep = int(bos_token_id is not None and row.token_ids_L[0] == bos_token_id)
    row = _select(row, np.r_[:keep, keep + excess : len(row.token_ids_L)])
    row.weights_L[0], row.answers_L[0] = 0.0, False  # the token that is now first has no context
    return row


def _places(row: Rendered) -> NDArray[np.int64]:
    """Place of each token in its own text, from 0: every completion goes on from the prompt's end."""
    places_L = np.arange(len(row.token_ids_L))
    if row.branches_L is None:
        return places_L
    num_trunk = int((row.branches_L == 0).sum())
    starts = np.flatnonzero(np.diff(row.branches_L, prepend=np.int8(0)))  # where each branch begins
    for start, end in zip(starts, [*starts[1:], len(places_L)], strict=True):
        places_L[start:end] = num_trunk + np.arange(end - start)
    return places_L


def _teaches(row: Rendered) -> bool:
    """Whether there is still something to learn; of a pair, whether both sides have an answer and differ."""
    if row.branches_L is None:
        return bool(row.answers_L.any())
    branches = [row.branches_L == branch for branch in np.unique(row.branches_L[row.branches_L > 0])]
    sides = [row.token_ids_L[inside_L] for inside_L in branches]
    answered = all(row.answers_L[inside_L].any() for inside_L in branches)
    return answered and bool(sides) and not (len(sides) == 2 and np.array_equal(*sides))


def _with_room_for_aside(row: Rendered, *, max_length: int) -> Rendered:
    """What statistics alone look at is cut at the right, whatever happens to rows that are too long."""
    if row.branches_L is None or row.length > max_length:
        return row
    too_far_L = (row.branches_L < 0) & (_places(row) >= max_length)
    return _select(row, np.flatnonzero(~too_far_L)) if too_far_L.any() else row


def _select(row: Rendered, places: NDArray[np.int64]) -> Rendered:
    branches_L = row.branches_L[places] if row.branches_L is not None else None
    return Rendered(row.token_ids_L[places], row.weights_L[places], row.answers_L[places], branches_L)
