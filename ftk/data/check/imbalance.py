"""`imbalance`: labels, or types of answers, of which some are far too frequent or too rare.

Shapes: N rows, L labels.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ftk.data.check.finding import Places, Remark, Remarked
from ftk.data.check.label import LONGEST_BYTES, labels_of
from ftk.data.check.row import CheckedRow

FEWEST_ROWS = 20
MOST_LABELS = 100
"""Different labels above which short answers are answers, and not labels."""
_LABELLED_SHARE = 0.9
"""Share of the rows that must have a label, for the set to be one of labelled rows."""
_FREQUENT_SHARE = 0.8
_RARE_RATIO = 20
"""The most frequent label to a rare one."""
_USUAL_TYPE_SHARE = 0.9
TYPES = ("other", "number", "yes or no", "JSON", "code", "list", "one line", "several lines", "refusal")
_NUMBER = re.compile(r"[-+]?[$€£]?\d[\d,. ]*%?")
_LIST = re.compile(r"(?m)^\s*(?:[-*•]|\d+[.)])\s")
_REFUSAL = re.compile(r"(?i)(?:i['’]?m sorry|sorry,|i (?:cannot|can['’]?t|am unable|won['’]?t)|as an ai\b)")


@dataclass(frozen=True)
class Imbalance:
    """Counts labels where the answers are labels, else types of answers."""

    name: str = "label"

    def measure(self, rows: Sequence[CheckedRow]) -> NDArray[np.void]:
        measured_N = np.empty(len(rows), np.dtype([("label", f"S{LONGEST_BYTES}"), ("type", np.uint8)]))
        measured_N["label"] = labels_of(rows)
        measured_N["type"] = [TYPES.index(answer_type(row.answer)) for row in rows]
        return measured_N

    def judge(self, measured_N: NDArray[Any], places: Places) -> Iterator[Remarked]:
        if len(measured_N) < FEWEST_ROWS:
            return
        labels_L, inverse_N, counts_L = np.unique(measured_N["label"], return_inverse=True, return_counts=True)
        unlabelled = int(counts_L[labels_L == b""].sum())
        if 2 <= len(labels_L) <= MOST_LABELS and unlabelled <= (1 - _LABELLED_SHARE) * len(measured_N):
            names = [label.decode() for label in labels_L]
            yield from _of_labels(names, inverse_N, np.where(labels_L == b"", 0, counts_L))
        elif unlabelled:
            yield from _of_types(measured_N["type"])


def answer_type(answer: str) -> str:
    """One of `TYPES`, from the outside of a text."""
    text = answer.strip()
    if not text:
        return "other"
    if len(text) <= 24:
        if _NUMBER.fullmatch(text):
            return "number"
        if text.rstrip(".!").casefold() in ("yes", "no", "true", "false"):
            return "yes or no"
    if text[0] in "{[" and text[-1] in "}]":
        return "JSON"
    if "```" in text:
        return "code"
    if _REFUSAL.match(text):
        return "refusal"
    if "\n" not in text:
        return "one line"
    return "list" if len(_LIST.findall(text)) >= 2 else "several lines"


def _of_labels(names: Sequence[str], inverse_N: NDArray[np.int64], counts_L: NDArray[np.int64]) -> Iterator[Remarked]:
    most, total = int(counts_L.argmax()), int(counts_L.sum())
    share = counts_L[most] / total
    if share > _FREQUENT_SHARE:
        message = (
            f"{share:.0%} of {total:,} answers are {names[most]!r}: a model that always says so seems good. These are "
            "the others"
        )
        for index in np.flatnonzero((inverse_N != most) & (counts_L[inverse_N] > 0)):
            yield Remarked(int(index), Remark("imbalance", "warning", message), repr(names[int(inverse_N[index])]))
        return
    rare_L = (counts_L > 0) & (counts_L * _RARE_RATIO < counts_L[most])
    for index in np.flatnonzero(rare_L[inverse_N]):
        label = int(inverse_N[index])
        message = (
            f"the answer {names[label]!r} is rare: {counts_L[label]:,} rows, and {names[most]!r} has {counts_L[most]:,}"
        )
        yield Remarked(int(index), Remark("imbalance", "warning", message))


def _of_types(types_N: NDArray[np.uint8]) -> Iterator[Remarked]:
    counts = np.bincount(types_N, minlength=len(TYPES))
    counts[0] = 0
    most, total = int(counts.argmax()), int(counts.sum())
    if total == 0 or counts[most] < _USUAL_TYPE_SHARE * total:
        return
    message = f"{counts[most] / total:.0%} of the answers are of one type ({TYPES[most]}), and these are of another"
    for index in np.flatnonzero((types_N != most) & (types_N != 0)):
        yield Remarked(int(index), Remark("imbalance", "info", message), TYPES[types_N[index]])
