"""Rows that are too long."""

import numpy as np

from ftk.data.render import Rendered


def truncate_right(row: Rendered, *, max_length: int) -> Rendered:
    """The first `max_length` tokens. An answer that is cut through no longer teaches its end of turn."""
    return _select(row, np.arange(max_length))


def truncate_left(row: Rendered, *, max_length: int, bos_token_id: int | None) -> Rendered:
    """The last `max_length` tokens, after the BOS where the row begins with one."""
    length = len(row.token_ids_L)
    keep = int(bos_token_id is not None and row.token_ids_L[0] == bos_token_id)
    row = _select(row, np.r_[:keep, length - (max_length - keep) : length])
    row.weights_L[0], row.answers_L[0] = 0.0, False  # the token that is now first has no context
    return row


def _select(row: Rendered, places: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Rendered:
    return Rendered(row.token_ids_L[places], row.weights_L[places], row.answers_L[places])
