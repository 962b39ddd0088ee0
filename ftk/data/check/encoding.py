"""`casing`, of letters that came through the wrong encoding or are put together in another way."""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

from ftk.data.check.finding import Remark
from ftk.data.check.row import CheckedRow

GARBLED = Remark("casing", "warning", "the text was read in a wrong encoding once, as é that has become Ã©")
DECOMPOSED = Remark("casing", "info", "letters with accents are written as two characters (not Unicode's form NFC)")

_GARBLED = re.compile(
    r"�|ï»¿|Ã[\u0080-\u00bf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ]|Â[\u0080-\u009f\u00a1-\u00bf]|â€[\u0080-\u00bf™œ˜“”¦\u009d]"
)
"""UTF-8 that was read as Latin-1 or Windows-1252, and what stands for bytes that could not be read at all."""


@dataclass(frozen=True)
class Encoding:
    """Looks at texts that are not ASCII."""

    def remarks(self, row: CheckedRow) -> Iterator[tuple[Remark, str]]:
        for turn in row.turns:
            if turn.text.isascii():
                continue
            match = _GARBLED.search(turn.text)
            if match:
                yield GARBLED, f"{match[0]!r} in {turn.side}"
                return
            if not unicodedata.is_normalized("NFC", turn.text):
                yield DECOMPOSED, turn.side
                return
