"""Texts as 64-bit numbers, of which a million fit where the texts do not.

Two of a million different texts have the same number with a probability of 3e-8.

Shapes: N texts, K of them later ones.
"""

from collections.abc import Iterable
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

NOTHING = 0
"""The number of a text without content, which is equal to none."""


def hash_of(text: str) -> int:
    """From 1 to 2^64 - 1; `NOTHING` for a blank text. The same in every process."""
    if not text or text.isspace():
        return NOTHING
    # Half a pair of surrogates, which JSON can spell, has no UTF-8.
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()) or 1


def hashes_of(texts: Iterable[str]) -> NDArray[np.uint64]:
    """Of each text, [N]."""
    return np.array([hash_of(text) for text in texts], np.uint64)


def repeats(hashes_N: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Places of the texts that stood before, [K], and of the first such text of each, [K]."""
    _, first, inverse_N = np.unique(hashes_N, return_index=True, return_inverse=True)
    first_N = first[inverse_N]
    (later_K,) = np.nonzero((first_N != np.arange(len(hashes_N))) & (hashes_N != NOTHING))
    return later_K, first_N[later_K]
