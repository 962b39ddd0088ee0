"""Words as 64-bit numbers, for what compares runs of words.

Shapes: N texts, W words of all texts.
"""

import re
from collections.abc import Iterable
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_WORD = re.compile(r"\w+")
_SCRIPTS = r"\u0e00-\u0eff\u1000-\u109f\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
"""Thai, Lao, Burmese, kana and Chinese characters, which are written without spaces between words."""
_UNSPACED = re.compile(f"[{_SCRIPTS}]")
_WORD_OR_CHARACTER = re.compile(rf"[{_SCRIPTS}]|[^\W{_SCRIPTS}]+")
_MOST_KNOWN = 1 << 18
"""Words whose numbers are kept, some 40 MB; past that they are forgotten, since numbers in a text have no end."""


class Words(NamedTuple):
    """The words of some texts, one after the other."""

    hashes_W: NDArray[np.uint64]
    counts_N: NDArray[np.int64]
    """Words of each text."""

    @property
    def starts_N(self) -> NDArray[np.int64]:
        """Place of each text's first word."""
        return np.cumsum(self.counts_N) - self.counts_N

    @property
    def texts_W(self) -> NDArray[np.int64]:
        """Which text each word is of."""
        return np.repeat(np.arange(len(self.counts_N)), self.counts_N)

    @property
    def left_W(self) -> NDArray[np.int64]:
        """Words of the same text from each word on, itself included."""
        ends_N = np.cumsum(self.counts_N)
        return np.repeat(ends_N, self.counts_N) - np.arange(len(self.hashes_W))


class _Known(dict[str, int]):
    def __missing__(self, word: str) -> int:
        if len(self) >= _MOST_KNOWN:
            self.clear()
        number = int.from_bytes(blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest())
        self[word] = number
        return number


_known = _Known()
"""Numbers of words seen before: the same in every process, so that keeping them changes no result."""


def words_of(texts: Iterable[str]) -> Words:
    """The words of each text, without case and punctuation."""
    numbers: list[int] = []
    counts: list[int] = []
    for text in texts:
        found = split_words(text)
        counts.append(len(found))
        numbers += map(_known.__getitem__, found)
    return Words(np.array(numbers, np.uint64), np.array(counts, np.int64))


def split_words(text: str) -> list[str]:
    """Words in small letters; of scripts without spaces, characters."""
    lower = text.lower()
    if lower.isascii() or not _UNSPACED.search(lower):
        return _WORD.findall(lower)
    return _WORD_OR_CHARACTER.findall(lower)


def mixed(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Numbers spread evenly over 64 bits, one to one.

    Source: the finalizer of SplitMix64, Steele, Lea & Flood 2014, figure 16 (constants: Stafford's variant 13).
    """
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))
