"""The two metrics of question answering, which compare words and so ignore punctuation: no test of JSON or code.

Source of both: Rajpurkar et al. 2016 (arXiv:1606.05250), section 6.1; the order of the steps and the treatment of
empty answers are those of the authors' `evaluate-v2.0.py`.
"""

import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from ftk.core.config import Section
from ftk.evaluation.metrics.extract import Pattern, extract, extract_references

_DROP_PUNCTUATION = str.maketrans("", "", string.punctuation)


def squad_words(text: str) -> list[str]:
    """The words of a text in lower case, without ASCII punctuation and the articles a, an and the."""
    return re.sub(r"\b(a|an|the)\b", " ", text.lower().translate(_DROP_PUNCTUATION)).split()


def exact_match_squad(answer: str, reference: str) -> float:
    """1 where both have the same words in the same order, else 0."""
    return float(squad_words(answer) == squad_words(reference))


def f1(answer: str, reference: str) -> float:
    """Harmonic mean of precision and recall over the bags of words; where either has none, 1 if both have none."""
    found, expected = squad_words(answer), squad_words(reference)
    if not found or not expected:
        return float(found == expected)
    num_shared = (Counter(found) & Counter(expected)).total()
    return 2 * num_shared / (len(found) + len(expected))


class ExactMatchSquad(Section):
    """The share of answers that have the reference's words."""

    name: Literal["exact_match_squad"] = "exact_match_squad"
    """`exact_match_squad`: equal in lower case, without punctuation and articles. No test of JSON or code."""

    def score(
        self, answers: Sequence[str], references: Sequence[str], columns: Sequence[Mapping[str, Any]]
    ) -> dict[str, list[float]]:
        """1 or 0 for each row."""
        return {self.name: [exact_match_squad(*pair) for pair in zip(answers, references, strict=True)]}


class F1(Section):
    """Overlap of the answer's words with the reference's."""

    name: Literal["f1"] = "f1"
    """`f1`: words shared with the reference, as in SQuAD."""
    extract: Pattern | None = None
    """A regular expression; its group 1 is compared instead of the whole answer."""

    def score(
        self, answers: Sequence[str], references: Sequence[str], columns: Sequence[Mapping[str, Any]]
    ) -> dict[str, list[float]]:
        """0 to 1 for each row; an answer that `extract` does not match gets 0."""
        expected = extract_references(references, self.extract)
        found = [extract(answer, self.extract) for answer in answers]
        pairs = zip(found, expected, strict=True)
        return {self.name: [0.0 if answer is None else f1(answer, reference) for answer, reference in pairs]}
