"""`contradiction`: one prompt that is answered in several ways, one pair of answers preferred in both orders.

Shapes: N rows.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ftk.data.check.finding import Places, Remark, Remarked
from ftk.data.check.hashes import NOTHING, hash_of
from ftk.data.check.row import CheckedRow

REMARK = Remark(
    "contradiction", "warning", "the same prompt has different answers: what the model learns is in between"
)
EQUAL = Remark("contradiction", "error", "the chosen and the rejected answer are equal, so there is nothing to prefer")
_LONGEST_VERDICT = 200
"""Characters up to which an answer is compared without case, end mark and white space."""


@dataclass(frozen=True)
class Contradiction:
    """Compares the answers to equal prompts."""

    name: str = "verdict"

    def measure(self, rows: Sequence[CheckedRow]) -> NDArray[np.void]:
        pairs = [(hash_of(row.question), hash_of(_plain(row.verdict)), _are_equal(row)) for row in rows]
        return np.array(pairs, np.dtype([("question", np.uint64), ("verdict", np.uint64), ("equal", np.bool_)]))

    def judge(self, measured_N: NDArray[Any], places: Places) -> Iterator[Remarked]:
        for index in np.flatnonzero(measured_N["equal"]).tolist():
            yield Remarked(index, EQUAL)
        for index, other in contradictions(measured_N["question"], measured_N["verdict"]):
            yield Remarked(index, REMARK, f"{places.place(other)} answers otherwise")


def contradictions(questions_N: NDArray[np.uint64], verdicts_N: NDArray[np.uint64]) -> Iterator[tuple[int, int]]:
    """Each row whose question has another verdict elsewhere, with the first row where it has."""
    (asked,) = np.nonzero((questions_N != NOTHING) & (verdicts_N != NOTHING))
    order = asked[np.lexsort((asked, questions_N[asked]))]
    borders = np.flatnonzero(np.diff(questions_N[order])) + 1
    sizes = np.diff(borders, prepend=0, append=len(order))
    found: list[tuple[int, int]] = []
    for group in (one for one, size in zip(np.split(order, borders), sizes, strict=True) if size > 1):
        verdicts = verdicts_N[group]
        others = np.flatnonzero(verdicts != verdicts[0])
        if len(others):
            found += [
                (int(one), int(group[0] if verdict != verdicts[0] else group[others[0]]))
                for one, verdict in zip(group, verdicts, strict=True)
            ]
    return iter(sorted(found))


def _plain(verdict: str) -> str:
    if len(verdict) > _LONGEST_VERDICT:
        return verdict
    return " ".join(verdict.casefold().split()).rstrip(".!")


def _are_equal(row: CheckedRow) -> bool:
    return len(row.conversations) == 2 and row.turns[-1].text == row.turns[-2].text
