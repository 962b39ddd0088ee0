"""`train_eval_overlap`, of named benchmarks: training rows that hold a run of words of one of their items.

Shapes: N rows, W words, G runs of a benchmark.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ftk.data.check.finding import Remark
from ftk.data.check.overlap import KIND
from ftk.data.check.row import CheckedRow
from ftk.data.check.words import Words, mixed, words_of

RUN = 13
"""Words. Source: Brown et al. 2020 (arXiv:2005.14165), appendix C; a text of fewer counts whole."""
FEWEST = 3
"""Words of a text that counts whole: `yes` is no sign of anything."""
_FACTORS = tuple(np.uint64(pow(0x9E3779B97F4A7C15, place + 1, 1 << 64)) for place in range(RUN))
"""Odd numbers by which the words of a run are told apart by their place."""


@dataclass(frozen=True)
class Benchmark:
    """The runs of words in the items of a benchmark."""

    name: str
    runs_G: NDArray[np.uint64]
    """In rising order."""
    items_G: NDArray[np.int64]
    """Number in the file of an item that holds each run, from 1."""

    @property
    def remark(self) -> Remark:
        return Remark(
            KIND,
            "warning",
            f"the row shares {RUN} words in a row, or a whole short text, with the benchmark {self.name}",
        )

    def shared(self, rows: Sequence[CheckedRow]) -> list[tuple[int, str]]:
        """The rows of which a text shares a run, by their place among `rows`, each with an item that it is of."""
        if not len(self.runs_G):
            return []
        words, rows_N = _words_of_turns(rows)
        runs, texts = runs_of(words)
        at = np.minimum(np.searchsorted(self.runs_G, runs), len(self.runs_G) - 1)
        found: dict[int, str] = {}
        for place in np.flatnonzero(self.runs_G[at] == runs):
            found.setdefault(int(rows_N[texts[place]]), f"{self.name}:{int(self.items_G[at[place]])}")
        return sorted(found.items())


def benchmark_of(name: str, rows: Sequence[CheckedRow]) -> Benchmark:
    """What is looked for of a benchmark."""
    words, rows_N = _words_of_turns(rows)
    runs, texts = runs_of(words)
    numbers = np.array([row.number for row in rows], np.int64)[rows_N[texts]]
    runs_G, first = np.unique(runs, return_index=True)
    return Benchmark(name, runs_G, numbers[first])


def runs_of(words: Words) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """A hash of each run, and the text that it stands in: of `RUN` words, or of all words of a text of fewer."""
    hashes_W, left_W, texts_W = words.hashes_W, words.left_W, words.texts_W
    runs_W = np.zeros(len(hashes_W), np.uint64)
    for place, factor in enumerate(_FACTORS):
        reaches_W = left_W > place
        runs_W[reaches_W] += hashes_W[np.flatnonzero(reaches_W) + place] * factor
    short_N = (words.counts_N < RUN) & (words.counts_N >= FEWEST)
    begins_W = np.zeros(len(hashes_W), np.bool_)
    begins_W[words.starts_N[short_N]] = True
    whole_W = (left_W >= RUN) | begins_W
    return mixed(runs_W[whole_W]), texts_W[whole_W]


def _words_of_turns(rows: Sequence[CheckedRow]) -> tuple[Words, NDArray[np.int64]]:
    """The words of all texts of the rows, and the row that each text is of."""
    texts = [(place, turn.text) for place, row in enumerate(rows) for turn in row.turns if turn.role != "system"]
    return words_of(text for _, text in texts), np.array([place for place, _ in texts], np.int64)
