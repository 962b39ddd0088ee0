"""`no_end`, of texts alone: answers that stop in the middle of a sentence, where the others do not.

Shapes: N rows.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ftk.data.check.finding import Places, Remark, Remarked
from ftk.data.check.row import CheckedRow

REMARK = Remark("no_end", "warning", "the answer stops in the middle of a sentence: it may have been cut")
FEWEST_ROWS = 10
"""Long answers below which there is no telling how they end."""
_LONG = 40
"""Characters from which an answer is taken for sentences."""
_USUAL_SHARE = 0.8
_ENDS, _STOPS = 1, 2


@dataclass(frozen=True)
class Ending:
    """Compares the last character of long answers with that of the others."""

    name: str = "ending"

    def measure(self, rows: Sequence[CheckedRow]) -> NDArray[np.uint8]:
        return np.array([_ending(row.answer) for row in rows], np.uint8)

    def judge(self, measured_N: NDArray[np.uint8], places: Places) -> Iterator[Remarked]:
        num_long = np.count_nonzero(measured_N)
        if num_long >= FEWEST_ROWS and np.count_nonzero(measured_N == _ENDS) >= _USUAL_SHARE * num_long:
            for index in np.flatnonzero(measured_N == _STOPS):
                yield Remarked(int(index), REMARK)


def _ending(answer: str) -> int:
    text = answer[-_LONG:].rstrip()
    if len(answer) < _LONG or " " not in text or not text:
        return 0
    return _STOPS if text[-1].isalnum() or text[-1] in ",;-–(" else _ENDS
