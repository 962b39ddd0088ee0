"""ROUGE-L: the longest common subsequence of words."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from ftk.core.config import Section


def rouge_words(text: str) -> list[str]:
    """Runs of letters and digits in lower case, without stemming.

    On ASCII text these are the tokens of Google's `rouge_score`. A script without spaces gives one token a phrase, so
    the metric says little there.
    """
    return re.findall(r"[^\W_]+", text.lower())


def lcs_length(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest common subsequence.

    One integer of `len(first)` bits holds a row of the dynamic programme, so a step costs a few operations on whole
    integers: a hundred times faster here than the quadratic loop.
    Source: Crochemore et al. 2001, 'A fast and practical bit-vector algorithm for the LCS problem'.
    """
    places: dict[str, int] = {}
    for place, word in enumerate(first):
        places[word] = places.get(word, 0) | 1 << place
    everywhere = (1 << len(first)) - 1
    row = everywhere
    for word in second:
        matched = row & places.get(word, 0)
        row = (row + matched | row - matched) & everywhere
    return len(first) - row.bit_count()


def rouge_l(answer: str, reference: str) -> float:
    """F-measure of the longest common subsequence of words, precision and recall weighing the same; 0 without words.

    Source: Lin 2004, 'ROUGE: a package for automatic evaluation of summaries', equations 2 to 4 with beta = 1.
    """
    found, expected = rouge_words(answer), rouge_words(reference)
    if not found or not expected:
        return 0.0
    return 2 * lcs_length(found, expected) / (len(found) + len(expected))


class RougeL(Section):
    """How much of the reference's order of words the answer keeps."""

    name: Literal["rouge_l"] = "rouge_l"
    """`rouge_l`: longest common subsequence of words, as an F-measure; for summaries and other free text."""

    def score(
        self, answers: Sequence[str], references: Sequence[str], columns: Sequence[Mapping[str, Any]]
    ) -> dict[str, list[float]]:
        """0 to 1 for each row."""
        return {self.name: [rouge_l(*pair) for pair in zip(answers, references, strict=True)]}
