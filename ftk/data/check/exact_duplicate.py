"""`exact_duplicate`: rows that say what an earlier one says, letter by letter."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ftk.data.check.finding import Places, Remark, Remarked
from ftk.data.check.hashes import hashes_of, repeats
from ftk.data.check.row import CheckedRow

REMARK = Remark("exact_duplicate", "warning", "the row repeats an earlier one; `ftk data fix` takes such rows out")


@dataclass(frozen=True)
class ExactDuplicate:
    """Compares the texts of rows; other columns, such as an id, are not looked at."""

    name: str = "row"

    def measure(self, rows: Sequence[CheckedRow]) -> NDArray[np.uint64]:
        return hashes_of(row_text(row) for row in rows)

    def judge(self, measured_N: NDArray[np.uint64], places: Places) -> Iterator[Remarked]:
        for later, first in zip(*repeats(measured_N), strict=True):
            yield Remarked(int(later), REMARK, f"repeats {places.place(int(first))}")


def row_text(row: CheckedRow) -> str:
    """The texts of a row with their roles, so that a question is not taken for an answer."""
    if all(not turn.text or turn.text.isspace() for turn in row.turns):
        return ""
    return "\x1e".join([part for turn in row.turns for part in turn])
