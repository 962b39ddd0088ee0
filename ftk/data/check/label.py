"""Answers of a few letters, which are labels where they repeat.

Shapes: N rows.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ftk.data.check.row import CheckedRow

LONGEST_BYTES = 24


def labels_of(rows: Sequence[CheckedRow]) -> NDArray[np.bytes_]:
    """The label of each row as UTF-8, [N]; empty where its answer is too long for one."""
    return np.array([_label(row.label) for row in rows], f"S{LONGEST_BYTES}")


def _label(text: str) -> bytes:
    if len(text) > LONGEST_BYTES:
        return b""
    encoded = text.strip().encode("utf-8", "replace")
    return encoded if len(encoded) <= LONGEST_BYTES and b"\n" not in encoded and b"\0" not in encoded else b""
