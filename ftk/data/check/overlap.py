"""`train_eval_overlap`: held-out rows that are trained on, so that what is measured on them is memory.

Shapes: N training rows, E held-out rows, P permutations, B bands.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ftk.data.check.finding import Places, Remark, Remarked
from ftk.data.check.hashes import NOTHING, hashes_of
from ftk.data.check.near_duplicates import THRESHOLD, similarity
from ftk.data.check.row import CheckedRow

KIND = "train_eval_overlap"
ROW = Remark(KIND, "error", "the held-out row stands in the training set")
PROMPT = Remark(KIND, "warning", "the prompt of the held-out row stands in the training set, with another answer")
NEAR = Remark(KIND, "warning", "the held-out row is almost a row of the training set")
_MOST_CANDIDATES = 16
"""Training rows of one bucket with which a held-out row is compared."""


@dataclass(frozen=True)
class PromptHash:
    """Keeps a number for each prompt."""

    name: str = "prompt"

    def measure(self, rows: Sequence[CheckedRow]) -> NDArray[np.uint64]:
        return hashes_of(row.prompt for row in rows)

    def judge(self, measured_N: NDArray[np.uint64], places: Places) -> Iterator[Remarked]:
        """Prompts may repeat within a set."""
        return iter(())


def exact_overlap(
    rows_N: NDArray[np.uint64],
    prompts_N: NDArray[np.uint64],
    places: Places,
    *,
    held_out_rows_E: NDArray[np.uint64],
    held_out_prompts_E: NDArray[np.uint64],
) -> list[Remarked]:
    """Held-out rows that are equal to a training row, and those of which only the prompt is."""
    row_E, prompt_E = _first_equal(rows_N, held_out_rows_E), _first_equal(prompts_N, held_out_prompts_E)
    found = []
    for index, (row, prompt) in enumerate(zip(row_E.tolist(), prompt_E.tolist(), strict=True)):
        if row >= 0:
            found.append(Remarked(index, ROW, f"is {places.place(row)}"))
        elif prompt >= 0:
            found.append(Remarked(index, PROMPT, f"asks what {places.place(prompt)} asks"))
    return found


def near_overlap(
    measured_N: NDArray[Any],
    places: Places,
    *,
    held_out_E: NDArray[Any],
    threshold: float = THRESHOLD,
    leave_out: frozenset[int] = frozenset(),
) -> list[Remarked]:
    """Held-out rows that are alike a training row, with the one that is most alike; without those of `leave_out`."""
    best_E, alike_E = np.full(len(held_out_E), -1), np.zeros(len(held_out_E))
    for band in range(held_out_E["bands"].shape[1]):
        hashes_N, hashes_E = measured_N["bands"][:, band], held_out_E["bands"][:, band]
        candidates = np.flatnonzero(np.isin(hashes_N, hashes_E) & (hashes_N != NOTHING))
        candidates = candidates[np.argsort(hashes_N[candidates], kind="stable")]
        first_E = np.searchsorted(hashes_N[candidates], hashes_E, side="left")
        end_E = np.searchsorted(hashes_N[candidates], hashes_E, side="right")
        for step in range(_MOST_CANDIDATES):
            (compared,) = np.nonzero(first_E + step < end_E)
            rows = candidates[first_E[compared] + step]
            alike = similarity(held_out_E["sketch"][compared], measured_N["sketch"][rows])
            better = alike > alike_E[compared]
            best_E[compared[better]], alike_E[compared[better]] = rows[better], alike[better]
    return [
        Remarked(int(index), NEAR, f"{alike_E[index]:.0%} like {places.place(int(best_E[index]))}")
        for index in np.flatnonzero(alike_E >= threshold)
        if int(index) not in leave_out
    ]


def _first_equal(hashes_N: NDArray[np.uint64], wanted_E: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Place of the first equal number, [E]; -1 where there is none."""
    values, first = np.unique(hashes_N, return_index=True)
    if not len(values):
        return np.full(len(wanted_E), -1)
    at_E = np.minimum(np.searchsorted(values, wanted_E), len(values) - 1)
    return np.where((values[at_E] == wanted_E) & (wanted_E != NOTHING), first[at_E], -1)
