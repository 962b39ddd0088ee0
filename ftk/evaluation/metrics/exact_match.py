"""Exact match: the answer is the reference, letter by letter."""

import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from ftk.core.config import Section
from ftk.evaluation.metrics.extract import Pattern, extract, extract_references, plain_number


def exact_match(answer: str, reference: str) -> float:
    """1 where both are equal after outer white space is dropped and Unicode is composed (NFC), else 0.

    Source: Unicode Standard Annex 15 for NFC, in which `e` + accent and `é` are the same text.
    """
    return float(unicodedata.normalize("NFC", answer).strip() == unicodedata.normalize("NFC", reference).strip())


class ExactMatch(Section):
    """The share of answers that equal the reference, outer white space apart."""

    name: Literal["exact_match"] = "exact_match"
    """`exact_match`: equal after outer white space and Unicode composition."""
    extract: Pattern | None = None
    """A regular expression; its group 1 is compared instead of the whole answer, such as `#### (-?[0-9.,]+)`."""
    numbers: bool = False
    """Compare as numbers where both are: `1,200`, `1200.` and `1200.00` are then equal."""

    def score(
        self, answers: Sequence[str], references: Sequence[str], columns: Sequence[Mapping[str, Any]]
    ) -> dict[str, list[float]]:
        """1 or 0 for each row; an answer that `extract` does not match is wrong."""
        expected = extract_references(references, self.extract)
        found = [extract(answer, self.extract) for answer in answers]
        return {self.name: [self._compare(*pair) for pair in zip(found, expected, strict=True)]}

    def _compare(self, answer: str | None, reference: str) -> float:
        if answer is None:
            return 0.0
        if self.numbers:
            return exact_match(plain_number(answer), plain_number(reference))
        return exact_match(answer, reference)
