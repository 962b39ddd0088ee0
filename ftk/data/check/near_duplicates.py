"""`near_duplicate`: rows that share most of their runs of three words with an earlier one.

Similarity is the Jaccard index of the sets of runs, estimated by MinHash; candidates are found by bands of the sketch.

Shapes: N texts, P permutations, B bands, K pairs.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ftk.data.check.finding import Places, Remark, Remarked
from ftk.data.check.hashes import hashes_of, repeats
from ftk.data.check.row import CheckedRow
from ftk.data.check.words import Words, mixed, words_of

THRESHOLD = 0.8
REMARK = Remark("near_duplicate", "warning", "the row says almost what an earlier one says")
RUN = 3
"""Words of a run; a text of fewer is one run."""
_LEAST_RECALL = 0.9
"""Share of the pairs exactly at the threshold that become candidates; of those above it, more."""
_TEXTS_AT_ONCE = 2000
_ROUNDS = 32
"""Rows of one bucket that others are compared with: a bucket of more than that many kinds of text is boilerplate."""
_FACTORS = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F), np.uint64(0x165667B19E3779F9))
"""Odd numbers by which the words of a run are told apart by their place."""


@dataclass(frozen=True)
class NearDuplicate:
    """Keeps a sketch of each row: two bytes for each permutation and eight for each band."""

    name: str = "sketch"
    threshold: float = THRESHOLD
    num_permutations: int = 128
    seed: int = 0

    @cached_property
    def rows_per_band(self) -> int:
        return rows_per_band(self.threshold, self.num_permutations)

    @property
    def dtype(self) -> np.dtype[np.void]:
        num_bands = self.num_permutations // self.rows_per_band
        return np.dtype(
            [
                ("text", np.uint64),
                ("sketch", np.uint16, (self.num_permutations,)),
                ("bands", np.uint64, (num_bands,)),
            ]
        )

    def measure(self, rows: Sequence[CheckedRow]) -> NDArray[np.void]:
        return self.measure_texts([row.text for row in rows])

    def measure_texts(self, texts: Sequence[str]) -> NDArray[np.void]:
        """Hash, sketch and band hashes of each text, [N]; bands of 0 for a text without words."""
        words = words_of(texts)
        sketch_NP = sketches(words, num_permutations=self.num_permutations, seed=self.seed)
        measured_N = np.empty(len(texts), self.dtype)
        measured_N["text"] = hashes_of(texts)
        measured_N["sketch"] = sketch_NP.astype(np.uint16)
        measured_N["bands"] = np.where((words.counts_N > 0)[:, None], bands(sketch_NP, self.rows_per_band), 0)
        return measured_N

    def judge(self, measured_N: NDArray[Any], places: Places) -> Iterator[Remarked]:
        groups_N = groups(measured_N, threshold=self.threshold)
        exact, _ = repeats(measured_N["text"])
        is_new_N = groups_N != np.arange(len(groups_N))
        is_new_N[exact] = False  # told of as exact duplicates
        (near,) = np.nonzero(is_new_N)
        sketch_NP = measured_N["sketch"]
        for index in near.tolist():
            first = int(groups_N[index])
            alike = similarity(sketch_NP[[index]], sketch_NP[[first]])[0]
            yield Remarked(index, REMARK, f"{alike:.0%} like {places.place(first)}")


def groups_of(
    texts: Sequence[str], *, threshold: float = THRESHOLD, num_permutations: int = 128, seed: int = 0
) -> NDArray[np.int64]:
    """Group number of each text, [N]: near-duplicates, and what is linked by them, have the same.

    A group's number is the place of its first text. Texts without words are groups of their own.
    """
    settings = NearDuplicate(threshold=threshold, num_permutations=num_permutations, seed=seed)
    measured = [
        settings.measure_texts(texts[start : start + _TEXTS_AT_ONCE]) for start in range(0, len(texts), _TEXTS_AT_ONCE)
    ]
    return groups(np.concatenate([np.empty(0, settings.dtype), *measured]), threshold=threshold)


def sketches(words: Words, *, num_permutations: int, seed: int) -> NDArray[np.uint32]:
    """MinHash of the set of runs of each text, [N, P]: two agree at a place with the probability of their similarity.

    Source: Broder 1997, 'On the resemblance and containment of documents'; the variant of one hash a run and several
    buckets is Dahlgaard, Knudsen & Thorup 2017 (arXiv:1704.04370).
    """
    from rensa import RMinHash

    runs, counts_N = _runs(words)
    offsets = np.concatenate([[0], np.cumsum(counts_N)]).astype(np.uint64)
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(runs, offsets, num_permutations, seed)
    return np.array(matrix.to_rows(), np.uint32).reshape(len(counts_N), num_permutations)


def rows_per_band(threshold: float, num_permutations: int) -> int:
    """The most rows of a band with which pairs at the threshold still become candidates.

    With bands of r rows a pair of similarity s is a candidate with probability 1 - (1 - s^r)^(P/r): more rows mean
    fewer candidates that are none. Source: Leskovec, Rajaraman & Ullman, Mining of Massive Datasets, 3.4.2.
    """
    fitting = [
        rows
        for rows in range(1, num_permutations + 1)
        if 1 - (1 - threshold**rows) ** (num_permutations // rows) >= _LEAST_RECALL
    ]
    return max(fitting, default=1)


def bands(sketch_NP: NDArray[np.uint32], rows: int) -> NDArray[np.uint64]:
    """A hash of each band of the sketch, [N, B]; 1 to 2^64 - 1."""
    num_bands = sketch_NP.shape[1] // rows
    wide = sketch_NP[:, : num_bands * rows].astype(np.uint64).reshape(len(sketch_NP), num_bands, rows)
    hashes_NB = np.zeros(wide.shape[:2], np.uint64)
    for row in range(rows):
        hashes_NB = mixed(hashes_NB * _FACTORS[0] + wide[:, :, row] + np.uint64(1))
    return np.maximum(hashes_NB, np.uint64(1))


def similarity(one_KP: NDArray[np.uint16], other_KP: NDArray[np.uint16]) -> NDArray[np.float64]:
    """Estimated Jaccard index of each pair, [K]; its standard error is at most 1 / (2 sqrt(P))."""
    return np.asarray((one_KP == other_KP).mean(axis=1))


def groups(measured_N: NDArray[Any], *, threshold: float) -> NDArray[np.int64]:
    """Group number of each sketch, [N]: its own place, or that of the first one it is linked with."""
    group_N = np.arange(len(measured_N))
    num_bands = measured_N["bands"].shape[1]
    for band in range(num_bands):
        hashes_N = np.ascontiguousarray(measured_N["bands"][:, band])
        order = np.argsort(hashes_N, kind="stable")
        order = order[np.searchsorted(hashes_N[order], 1) :]  # texts without words are like none
        _join_buckets(group_N, order, hashes_N, measured_N["sketch"], threshold=threshold)
    return group_N


def _join_buckets(
    group_N: NDArray[np.int64],
    order: NDArray[np.int64],
    hashes_N: NDArray[np.uint64],
    sketch_NP: NDArray[np.uint16],
    *,
    threshold: float,
) -> None:
    """Join what is alike within each bucket of one band; `order` has buckets one after the other.

    In each round the first row of each bucket that has not led yet leads, and the others are compared with it: buckets
    of one kind of text, which is most of them, take one round.
    """
    for _ in range(_ROUNDS):
        if len(order) < 2:
            return
        begins = np.concatenate([[True], hashes_N[order[1:]] != hashes_N[order[:-1]]])
        leaders = order[np.flatnonzero(begins)[np.cumsum(begins) - 1]]
        apart = group_N[order] != group_N[leaders]
        pairs = np.stack([order[apart], leaders[apart]])
        alike = np.concatenate([np.empty(0, np.bool_), *_alike(pairs, sketch_NP, threshold=threshold)])
        _join(group_N, pairs[:, alike])
        left = np.zeros(len(order), np.bool_)
        left[np.flatnonzero(apart)[~alike]] = True
        order = order[left]


def _alike(pairs: NDArray[np.int64], sketch_NP: NDArray[np.uint16], *, threshold: float) -> Iterator[NDArray[np.bool_]]:
    at_once = 50_000  # 26 MB of sketches
    for start in range(0, pairs.shape[1], at_once):
        one, other = pairs[:, start : start + at_once]
        yield similarity(sketch_NP[one], sketch_NP[other]) >= threshold


def _join(group_N: NDArray[np.int64], pairs: NDArray[np.int64]) -> None:
    """Give linked rows the smallest group number among them."""
    one, other = pairs
    while len(one):
        low, high = np.minimum(group_N[one], group_N[other]), np.maximum(group_N[one], group_N[other])
        np.minimum.at(group_N, high, low)
        while True:  # each number leads to a smaller one, until one that leads to itself
            further = group_N[group_N]
            if np.array_equal(further, group_N):
                break
            group_N[:] = further
        apart = group_N[one] != group_N[other]
        one, other = one[apart], other[apart]


def _runs(words: Words) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """A hash of each run of `RUN` words, and the number of runs of each text."""
    hashes_W, left_W = words.hashes_W, words.left_W
    runs_W = np.zeros(len(hashes_W), np.uint64)
    for place, factor in enumerate(_FACTORS):
        reaches_W = left_W > place
        runs_W[reaches_W] += hashes_W[np.flatnonzero(reaches_W) + place] * factor
    begins_W = np.zeros(len(hashes_W), np.bool_)
    begins_W[words.starts_N[words.counts_N > 0]] = True
    whole_W = (left_W >= RUN) | begins_W
    return mixed(runs_W[whole_W]), np.maximum(words.counts_N - RUN + 1, np.minimum(words.counts_N, 1))
