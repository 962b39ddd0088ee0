"""Rows of infilling: prefix, suffix and middle in the order in which a model reads them, and what each token weighs.

Source: Bavarian et al. 2022 (arXiv:2207.14255), section 3.

Shapes: T tokens of a row.
"""

from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from ftk.data.tokens import Encoded

NUM_MARKS = 4
"""Tokens that a rearranged text has more: before prefix, suffix and middle, and at the end."""
_Number = TypeVar("_Number", bound=np.generic)


class Parts(NamedTuple):
    """A text in three."""

    prefix: Encoded
    suffix: Encoded
    middle: Encoded
    num_joined: int = 0
    """Tokens at the start of `middle` that are the prefix's, of formats that write the two as one text."""


class Row(NamedTuple):
    """A rearranged text without a BOS."""

    token_ids_T: NDArray[np.int32]
    num_bytes_T: NDArray[np.int64]
    """Bytes of text that each token stands for."""
    weights_T: NDArray[np.float32]
    """Loss weights: 1 in the middle and at its end, less before; of the marks that are given without meaning."""


def arrange(
    prefix_T: NDArray[_Number],
    suffix_T: NDArray[_Number],
    middle_T: NDArray[_Number],
    *,
    marks: tuple[int, int, int, int],
    suffix_first: bool,
) -> NDArray[_Number]:
    """The row without a BOS: prefix, suffix, middle (PSM), or suffix, prefix, middle (SPM), and the end.

    SPM is the variant with both marks before the suffix, in which the middle goes on from the prefix without a mark
    between: that of Bavarian et al. 2022, section 3, of Code Llama and of StarCoder.

    Args:
        marks: what stands before prefix, suffix and middle, and at the end.
    """
    pre, suf, mid, end = (np.array([mark], prefix_T.dtype) for mark in marks)
    if suffix_first:
        return np.concatenate([pre, suf, suffix_T, mid, prefix_T, middle_T, end])
    return np.concatenate([pre, prefix_T, suf, suffix_T, mid, middle_T, end])


def row_of(parts: Parts, *, marks: tuple[int, int, int, int], suffix_first: bool, context_weight: float) -> Row:
    """Tokens, bytes and loss weights of a text in three; prefix and suffix weigh `context_weight`."""
    prefix, suffix, middle, num_joined = parts
    of_prefix, of_suffix = (np.full(len(text.token_ids_T), context_weight, np.float32) for text in (prefix, suffix))
    of_middle = np.ones(len(middle.token_ids_T), np.float32)
    of_middle[:num_joined] = context_weight
    none = (0, 0, 0, 0)
    return Row(
        arrange(prefix.token_ids_T, suffix.token_ids_T, middle.token_ids_T, marks=marks, suffix_first=suffix_first),
        arrange(prefix.num_bytes_T, suffix.num_bytes_T, middle.num_bytes_T, marks=none, suffix_first=suffix_first),
        arrange(of_prefix, of_suffix, of_middle, marks=(1, 1, 1, 1), suffix_first=suffix_first),
    )
