"""Splits and their slices: `train`, `train[:95%]`, `train[100:200]`."""

import re
from typing import NamedTuple

from ftk.core.errors import DataError

_SPLIT = re.compile(r"(?P<name>\w[\w.-]*)(\[(?P<start>-?\d+%?)?:(?P<stop>-?\d+%?)?\])?")


class Split(NamedTuple):
    """A named part of a data set, or a slice of it."""

    name: str
    start: str = ""
    stop: str = ""

    @property
    def is_whole(self) -> bool:
        return not self.start and not self.stop

    def bounds(self, num_rows: int) -> tuple[int, int]:
        """The first row from 0, and the one after the last.

        Percentages are rounded to the nearest row, as the datasets library does, so that `[:95%]` and `[95%:]` share
        no row.
        """
        start = _bound(self.start, num_rows, default=0)
        return start, max(start, _bound(self.stop, num_rows, default=num_rows))


def parse_split(text: str, *, place: str) -> Split:
    """
    Raises:
        DataError: not a split with at most one slice.
    """
    match = _SPLIT.fullmatch(text.strip())
    if match is None:
        raise DataError(
            f"split {text!r} does not read, expected such as train, train[:95%] or train[100:200]", place=place
        )
    return Split(match["name"], match["start"] or "", match["stop"] or "")


def _bound(text: str, num_rows: int, *, default: int) -> int:
    if not text:
        return default
    number = round(int(text[:-1]) * num_rows / 100) if text.endswith("%") else int(text)
    return min(max(number + num_rows if number < 0 else number, 0), num_rows)
