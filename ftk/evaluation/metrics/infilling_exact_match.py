"""Exact match of middles: what fills the hole is what was there."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from ftk.core.config import Section


def infilling_exact_match(answer: str, reference: str) -> float:
    """1 where both are equal letter by letter, white space at either end apart, else 0.

    Source: Allal et al. 2023 (arXiv:2301.03988), section 5.2, the line exact match of single-line holes.
    """
    return float(answer.strip() == reference.strip())


class InfillingExactMatch(Section):
    """The share of holes that are filled with what was there."""

    name: Literal["infilling_exact_match"] = "infilling_exact_match"
    """`infilling_exact_match`: the middle is what was there, white space at either end apart."""

    def score(
        self, answers: Sequence[str], references: Sequence[str], columns: Sequence[Mapping[str, Any]]
    ) -> dict[str, list[float]]:
        """1 or 0 for each hole."""
        return {self.name: [infilling_exact_match(*pair) for pair in zip(answers, references, strict=True)]}
