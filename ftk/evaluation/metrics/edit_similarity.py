"""Edit similarity: how few letters an answer is away from its reference."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from ftk.core.config import Section


def edit_distance(first: str, second: str) -> int:
    """Fewest letters to put in, take out or exchange that make one of the other.

    One integer of `len(first)` bits holds a column of the dynamic programme, as the differences down it.
    Source: Hyyrö 2003, 'A bit-vector algorithm for computing Levenshtein and Damerau edit distances', figure 9.
    """
    if not first or not second:
        return len(first) + len(second)
    places: dict[str, int] = {}
    for place, letter in enumerate(first):
        places[letter] = places.get(letter, 0) | 1 << place
    everywhere, last = (1 << len(first)) - 1, 1 << (len(first) - 1)
    rises, falls, distance = everywhere, 0, len(first)
    for letter in second:
        equal = places.get(letter, 0)
        diagonal = (((equal & rises) + rises) ^ rises) | equal | falls
        rises_across, falls_across = falls | ~(diagonal | rises) & everywhere, rises & diagonal
        distance += bool(rises_across & last) - bool(falls_across & last)
        # Along the top the distance rises by one with each letter.
        rises_across = rises_across << 1 | 1
        rises = (falls_across << 1 | ~(diagonal | rises_across)) & everywhere
        falls = rises_across & diagonal & everywhere
    return distance


def edit_similarity(answer: str, reference: str) -> float:
    """1 less the edit distance over the length of the longer text; 1 for two empty texts. Outer white space is dropped.

    Source: Ding et al. 2023 (arXiv:2310.11248), section 3.1.
    """
    found, expected = answer.strip(), reference.strip()
    longer = max(len(found), len(expected))
    return 1 - edit_distance(found, expected) / longer if longer else 1.0


class EditSimilarity(Section):
    """How few letters the answer is away from the reference."""

    name: Literal["edit_similarity"] = "edit_similarity"
    """`edit_similarity`: 1 less the Levenshtein distance over the longer length; for code and other exact text."""

    def score(
        self, answers: Sequence[str], references: Sequence[str], columns: Sequence[Mapping[str, Any]]
    ) -> dict[str, list[float]]:
        """0 to 1 for each row."""
        return {self.name: [edit_similarity(*pair) for pair in zip(answers, references, strict=True)]}
