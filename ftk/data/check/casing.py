"""`casing`: labels and texts that are written in capitals here and in small letters there.

Shapes: N rows.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ftk.data.check.finding import Places, Remark, Remarked
from ftk.data.check.label import LONGEST_BYTES, labels_of
from ftk.data.check.row import CheckedRow

LABELS = Remark("casing", "warning", "the same answer is written with other capitals elsewhere")
_STYLES = ("", "capitals", "small letters", "mixed")
_FEWEST_CHARACTERS = 12
"""Below which a text in capitals may be a name or an abbreviation."""
_USUAL_SHARE = 0.8
_MOST_FORMS = 100_000
"""Different short answers above which they are no labels."""


@dataclass(frozen=True)
class Casing:
    """Compares how answers are capitalised with how the others are."""

    name: str = "casing"

    def measure(self, rows: Sequence[CheckedRow]) -> NDArray[np.void]:
        kinds = np.dtype([("label", f"S{LONGEST_BYTES}"), ("prompt", np.uint8), ("answer", np.uint8)])
        measured_N = np.empty(len(rows), kinds)
        measured_N["label"] = labels_of(rows)
        measured_N["prompt"] = [style(row.prompt) for row in rows]
        measured_N["answer"] = [style(row.answer) for row in rows]
        return measured_N

    def judge(self, measured_N: NDArray[Any], places: Places) -> Iterator[Remarked]:
        yield from _of_labels(measured_N["label"])
        for side in ("prompt", "answer"):
            yield from _of_styles(measured_N[side], side)


def style(text: str) -> int:
    """Index into `_STYLES`; 0 for a text that is short or has no letters."""
    if len(text) < _FEWEST_CHARACTERS:
        return 0
    if text.isupper():
        return 1
    if text.isascii():
        # A copy is made and compared in a fifth of the time in which `islower` asks letter by letter.
        if text.lower() != text:
            return 3
        return 2 if text.upper() != text else 0
    if text.islower():
        return 2
    return 3 if text.upper() != text else 0


def _of_labels(labels_N: NDArray[np.bytes_]) -> Iterator[Remarked]:
    forms, inverse_N, counts = np.unique(labels_N, return_inverse=True, return_counts=True)
    if len(forms) > _MOST_FORMS:
        return
    folded: dict[str, list[int]] = {}
    names = [bytes(form).decode() for form in forms]
    for place, name in enumerate(names):
        if name:
            folded.setdefault(name.casefold(), []).append(place)
    usual: dict[int, int] = {}
    for same in folded.values():
        best = max(same, key=lambda place: counts[place])
        usual |= {place: best for place in same if place != best}
    for index in np.flatnonzero(np.isin(inverse_N, list(usual))):
        form = int(inverse_N[index])
        yield Remarked(int(index), LABELS, f"{names[form]!r}, mostly {names[usual[form]]!r}")


def _of_styles(styles_N: NDArray[np.uint8], side: str) -> Iterator[Remarked]:
    counts = np.bincount(styles_N, minlength=len(_STYLES))
    counts[0] = 0
    usual, total = int(counts.argmax()), int(counts.sum())
    if total == 0 or counts[usual] < _USUAL_SHARE * total or counts[usual] == total:
        return
    how = "in both kinds of letters" if _STYLES[usual] == "mixed" else f"in {_STYLES[usual]}"
    message = f"{counts[usual] / total:.0%} of the {side}s are written {how}, and these are not"
    for index in np.flatnonzero((styles_N != usual) & (styles_N != 0)):
        yield Remarked(int(index), Remark("casing", "info", message), _STYLES[styles_N[index]])
