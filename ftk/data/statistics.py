"""What is worth knowing of a data set before it is trained on.

Shapes: N examples.
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ftk.core.types import Examples


@dataclass(frozen=True)
class CompletionStatistics:
    """Lengths of the chosen, rejected, good or bad completions of a set."""

    name: str
    num_completions: int
    shortest: int
    median: int
    longest: int
    """Tokens a completion."""


@dataclass(frozen=True)
class Statistics:
    """Counts over rows that were rendered whole."""

    num_rows: int
    num_tokens: int
    num_answer_tokens: int
    prompt_weight_share: float
    """Share of the loss weight that lies on prompts, 0 to 1."""
    shortest: int
    median: int
    longest: int
    """Tokens a row; of a prompt with completions, those of the longest text."""
    num_too_long: int
    """Rows longer than `max_length`."""
    num_duplicates: int
    """Rows that are equal to an earlier one."""
    histogram: tuple[tuple[int, int, int], ...]
    """Lengths: from, up to and including, number of rows."""
    completions: tuple[CompletionStatistics, ...] = ()
    """Where rows are preferences."""
    chosen_longer_share: float | None = None
    """Share of the pairs whose chosen completion is the longer one, 0 to 1: far from 0.5 length itself is learned."""

    @property
    def answer_share(self) -> float:
        """Share of the tokens that belong to learned answers."""
        return self.num_answer_tokens / self.num_tokens


@dataclass(frozen=True)
class Overlap:
    """What training and evaluation share."""

    num_rows: int
    """Evaluation rows that stand in the training set."""
    num_prompts: int
    """Evaluation rows whose prompt stands there, whatever the answer."""


def statistics(examples: Examples, *, max_length: int, num_bins: int = 12) -> Statistics:
    """Lengths, what teaches, and exact duplicates."""
    lengths_N = _text_lengths(examples)
    rows = Counter(_rows(examples))
    weight = float(examples.weights.sum(dtype=np.float64))
    on_answers = float(examples.weights.sum(where=examples.answers, dtype=np.float64))
    return Statistics(
        num_rows=len(examples),
        num_tokens=len(examples.token_ids),
        num_answer_tokens=int(examples.answers.sum()),
        prompt_weight_share=1 - on_answers / weight,
        shortest=int(lengths_N.min()),
        median=int(np.median(lengths_N)),
        longest=int(lengths_N.max()),
        num_too_long=int((lengths_N > max_length).sum()),
        num_duplicates=len(examples) - len(rows),
        histogram=_histogram(lengths_N, num_bins),
        completions=_completions(examples),
        chosen_longer_share=_chosen_longer(examples),
    )


def overlap(train: Examples, evaluation: Examples) -> Overlap:
    """Evaluation rows, and prompts, that are exactly those of a training row."""
    rows, prompts = set(_rows(train)), set(_prompts(train))
    return Overlap(
        num_rows=sum(row in rows for row in _rows(evaluation)),
        num_prompts=sum(prompt in prompts for prompt in _prompts(evaluation)),
    )


def bars(histogram: tuple[tuple[int, int, int], ...], *, width: int = 40) -> list[str]:
    """The histogram as lines for a terminal."""
    most = max(number for _, _, number in histogram)
    digits = len(f"{histogram[-1][1]:,}")
    return [
        f"{start:>{digits},} to {stop:>{digits},} {'█' * round(width * number / most):<{width}} {number:,}"
        for start, stop, number in histogram
    ]


def _branch_lengths(examples: Examples, branch: int) -> NDArray[np.int64]:
    """Tokens of one branch of each example, [N]."""
    assert examples.branches is not None
    return np.add.reduceat(examples.branches == branch, examples.offsets[:-1], dtype=np.int64)


def _text_lengths(examples: Examples) -> NDArray[np.int64]:
    if examples.branches is None:
        return examples.lengths_N
    completions = [_branch_lengths(examples, branch) for branch in (1, 2)]
    return _branch_lengths(examples, 0) + np.maximum(*completions)


def _completions(examples: Examples) -> tuple[CompletionStatistics, ...]:
    if examples.branches is None:
        return ()
    desirable = examples.columns.get("desirable")
    if desirable is None:
        found = {"chosen": _branch_lengths(examples, 1), "rejected": _branch_lengths(examples, 2)}
    else:
        own = _branch_lengths(examples, 1)
        found = {"good": own[desirable == 1], "bad": own[desirable == 0]}
    return tuple(
        CompletionStatistics(name, len(one), int(one.min()), int(np.median(one)), int(one.max()))
        for name, one in found.items()
        if len(one)
    )


def _chosen_longer(examples: Examples) -> float | None:
    if examples.branches is None or "desirable" in examples.columns:
        return None
    return float((_branch_lengths(examples, 1) > _branch_lengths(examples, 2)).mean())


def _histogram(lengths_N: NDArray[np.int64], num_bins: int) -> tuple[tuple[int, int, int], ...]:
    low, high = int(lengths_N.min()), int(lengths_N.max())
    step = -(-(high - low + 1) // num_bins)
    edges = range(low, high + step + 1, step)
    counts, _ = np.histogram(lengths_N, bins=np.array(edges) - 0.5)
    return tuple((start, start + step - 1, int(number)) for start, number in zip(edges, counts, strict=False))


def _rows(examples: Examples) -> list[bytes]:
    return [example.token_ids_L.tobytes() for example in examples]


def _prompts(examples: Examples) -> list[bytes]:
    return [example.token_ids_L[: int(np.argmax(example.answers_L))].tobytes() for example in examples]
