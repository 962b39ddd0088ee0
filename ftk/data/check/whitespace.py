"""`whitespace`: characters that nobody sees, and white space that nobody meant."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from ftk.data.check.finding import Remark
from ftk.data.check.row import CheckedRow

CONTROL = Remark("whitespace", "warning", "there are control or invisible characters in the text")
AROUND = Remark("whitespace", "info", "a text begins or ends with white space")
WITHIN = Remark("whitespace", "info", "there are runs of spaces, empty lines, carriage returns or no-break spaces")

_ASCII_SHOWN = bytes([9, 10, 13, *range(32, 127)])
_UNSEEN = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\xad\u200b\u200e\u200f\u2028-\u202e\u2060-\u2064\ufeff]")
"""Joiners (U+200C, U+200D) are left out: scripts and emoji are written with them."""
_RUN = re.compile(r"\S {3,}\S|\n{4,}|\r|\xa0")


@dataclass(frozen=True)
class Whitespace:
    """Looks at every text of a row; indentation of lines is meant."""

    def remarks(self, row: CheckedRow) -> Iterator[tuple[Remark, str]]:
        for turn in row.turns:
            text = turn.text
            unseen = unseen_in(text)
            if unseen is not None:
                yield CONTROL, f"U+{ord(unseen):04X} in {turn.side}"
                break
        around = [turn for turn in row.turns if turn.text != turn.text.strip()]
        if any(not turn.text.isspace() for turn in around):
            yield AROUND, around[0].side
        for turn in row.turns:
            if _may_have_run(turn.text) and _RUN.search(turn.text):
                yield WITHIN, turn.side
                break


def unseen_in(text: str) -> str | None:
    """The first control or invisible character, line breaks and tabs apart."""
    # Deleting bytes is ten times as fast as searching by the pattern.
    if text.isascii() and not text.encode("ascii").translate(None, _ASCII_SHOWN):
        return None
    match = _UNSEEN.search(text)
    return match[0] if match else None


def _may_have_run(text: str) -> bool:
    return "   " in text or "\n\n\n\n" in text or "\r" in text or "\xa0" in text
