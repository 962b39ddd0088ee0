"""`length_outlier`: rows that are far longer or shorter than the others.

Shapes: N rows.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ftk.data.check.finding import Places, Remark, Remarked
from ftk.data.check.row import CheckedRow

FEWEST_ROWS = 20
"""Rows below which there is no telling what is usual."""
_FENCE = 3.0
"""Interquartile ranges beyond the quartiles: Tukey's 'far out'."""
_LEAST_RATIO = 4.0
"""Of an outlier's length to the median, so that sets of nearly equal lengths have none."""


@dataclass(frozen=True)
class Spread:
    """Lengths of the rows of a set."""

    unit: str
    """`tokens` or `characters`."""
    shortest: int
    percentile_5: int
    median: int
    percentile_95: int
    longest: int


@dataclass(frozen=True)
class LengthOutlier:
    """Compares lengths on a logarithmic scale: in tokens where a model is known, else in characters."""

    name: str = "length"
    unit: str = "characters"

    def measure(self, rows: Sequence[CheckedRow]) -> NDArray[np.int64]:
        if self.unit == "tokens":
            return np.array([row.rendering.num_tokens if row.rendering else 0 for row in rows], np.int64)
        return np.array([sum([len(turn.text) for turn in row.turns]) for row in rows], np.int64)

    def judge(self, measured_N: NDArray[np.int64], places: Places) -> Iterator[Remarked]:
        low, high = fences(measured_N)
        for index in np.flatnonzero((measured_N > high) | ((measured_N < low) & (measured_N > 0))):
            length = int(measured_N[index])
            how = "longer" if length > high else "shorter"
            remark = Remark("length_outlier", "info", f"the row is far {how} than the others")
            yield Remarked(int(index), remark, f"{length:,} {self.unit}")

    def spread(self, measured_N: NDArray[np.int64]) -> Spread | None:
        """None where no row has a length."""
        lengths = measured_N[measured_N > 0]
        if not len(lengths):
            return None
        return Spread(self.unit, *(int(one) for one in np.percentile(lengths, [0, 5, 50, 95, 100])))


def fences(lengths_N: NDArray[np.int64]) -> tuple[float, float]:
    """The shortest and the longest length that is no outlier; 0 and infinity for a set of few rows.

    Source: Tukey 1977, Exploratory Data Analysis, 2D ('outer fences'), here of logarithms, since lengths of texts are
    skewed.
    """
    logs = np.log(lengths_N[lengths_N > 0])
    if len(logs) < FEWEST_ROWS:
        return 0.0, float("inf")
    first, median, third = np.percentile(logs, [25, 50, 75])
    reach, least = _FENCE * (third - first), np.log(_LEAST_RATIO)
    return float(np.exp(min(first - reach, median - least))), float(np.exp(max(third + reach, median + least)))
