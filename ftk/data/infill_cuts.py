"""Where a text is cut for infilling: the middle, between two borders drawn at random.

Source: Bavarian et al. 2022 (arXiv:2207.14255), section 3 and appendix B on the level of the borders.
"""

import hashlib
import random
import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

Cut = Literal["character", "token", "line", "syntax"]
Level = Literal["context", "document"]
_LINE = re.compile(r"[^\n]*\n|[^\n]+")


def generator(text: str, seed: int) -> random.Random:
    """The draws for one document: by its text and the seed alone, so that they are the same on each start."""
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8, salt=seed.to_bytes(8, "little"))
    return random.Random(int.from_bytes(digest.digest(), "little"))


def draw_span(
    num_units: int, rng: random.Random, *, longest: int | None = None, or_all: bool = False
) -> tuple[int, int] | None:
    """First unit of the middle and the one after its last, uniform over all spans that are neither empty nor all.

    None where there are fewer than two units: such a text is too short to cut.

    Args:
        longest: most units of a middle.
        or_all: whether the middle may be all of the units, as there is text beside them.
    """
    most = num_units if or_all else num_units - 1
    if most < 1:
        return None
    lengths = range(1, min(longest or most, most) + 1)
    (length,) = rng.choices(lengths, [num_units - length + 1 for length in lengths])
    start = rng.randrange(num_units - length + 1)
    return start, start + length


def line_borders(text: str) -> list[int]:
    """Places between the lines of a text, its beginning and its end among them."""
    return [0, *(match.end() for match in _LINE.finditer(text))]


def draw_lines(
    text: str,
    rng: random.Random,
    *,
    longest: int | None = None,
    goes_on: bool = False,
    is_cut: bool = False,
) -> tuple[int, int] | None:
    """Places of a middle of whole lines, of parts of lines where no line is whole; None where there is one line only.

    Uniform over the spans that say something, as nobody asks for an empty line or a bare quote; but where no line does,
    over all.

    Args:
        goes_on: whether the first line is the rest of one that begins before the text.
        is_cut: whether the last line goes on behind the text.
    """
    borders = line_borders(text)
    num_borders = len(borders)
    if num_borders - goes_on - is_cut > 1:
        borders = borders[goes_on : num_borders - is_cut]
    is_said = _says_something(text[borders[0] : borders[-1]])
    while True:
        # A text that begins or ends with a part of a line is not all middle, though every whole line be in it.
        span = draw_span(len(borders) - 1, rng, longest=longest, or_all=len(borders) < num_borders)
        if span is None:
            return None
        start, stop = borders[span[0]], borders[span[1]]
        if not is_said or _says_something(text[start:stop]):
            return start, stop


def draw_characters(text: str, rng: random.Random, *, longest: int | None = None) -> tuple[int, int] | None:
    """Places of a middle that begins and ends at any character; None where there is one character only."""
    return draw_span(len(text), rng, longest=longest)


def draw_line(text: str, rng: random.Random) -> tuple[int, int] | None:
    """Places of one whole line that says something, the first and the last apart; None where there is none.

    The first and the last line of a piece may be parts of lines.
    """
    borders = line_borders(text)
    lines: Sequence[tuple[int, int]] = list(pairwise(borders))[1:-1]
    worth = [(start, stop) for start, stop in lines if _says_something(text[start:stop])]
    return rng.choice(worth) if worth else None


def _says_something(text: str) -> bool:
    return any(map(str.isalnum, text))
