"""Texts rearranged for infilling: the middle moves to the end, so that a model learns to fill holes.

Source: Bavarian et al. 2022 (arXiv:2207.14255), sections 3 and 4.

Shapes: T tokens of a stretch, L tokens of a piece.
"""

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from ftk.data.infill_cuts import Cut, Level, draw_characters, draw_lines, draw_span, generator
from ftk.data.infill_format import InfillFormat
from ftk.data.infill_syntax import draw_node, node_spans
from ftk.data.pieces import Cutter, Piece, Stretch
from ftk.data.tokens import Encoded, PartEncoder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NUM_MARKS = 4
"""Tokens that a rearranged text has more: before prefix, suffix and middle, and at the end."""
_Number = TypeVar("_Number", bound=np.generic)
CUT, SUFFIX_FIRST, TOO_SHORT, NO_PYTHON = "cut", "suffix_first", "too_short", "no_python"


@dataclass(frozen=True)
class Infilling:
    """How texts are cut and rearranged."""

    format: InfillFormat
    fim_rate: float
    spm_rate: float
    cut: Cut
    level: Level
    seed: int
    longest: int | None = None
    """Most characters, tokens or lines of a middle, as `cut` says; None sets no bound."""


class Drawn(NamedTuple):
    """What the draws made of tokens `[first, last)` of a stretch."""

    first: int
    last: int
    middle: tuple[int, int] | None
    """First and last border, tokens of the stretch under `cut: token` and else characters; None leaves it wdrawn."""
    suffix_first: bool = False


def arrange(
    prefix_T: NDArray[_Number],
    suffix_T: NDArray[_Number],
    middle_T: NDArray[_Number],
    *,
    marks: tuple[int, int, int, int],
    suffix_first: bool,
) -> NDArray[_Number]:
    """The row without a BOS: prefix, suffix, middle (PSM), or suffix, prefix, middle (SPM), and the end.

    SPM is the variant with both marks before the suffix, in which the middle goes on from the prefix without a mark
    between: that of Bavarian et al. 2022, section 3, of Code Llama and of StarCoder.

    Args:
        marks: what stands before prefix, suffix and middle, and at the end.
    """
    pre, suf, mid, end = (np.array([mark], prefix_T.dtype) for mark in marks)
    if suffix_first:
        return np.concatenate([pre, suf, suffix_T, mid, prefix_T, middle_T, end])
    return np.concatenate([pre, prefix_T, suf, suffix_T, mid, middle_T, end])


@dataclass
class InfillCutter:
    """Makes pieces of documents, some of them rearranged.

    At the context level a document is cut into pieces first, and each is rearranged within itself; at the document
    level the document is rearranged, and then cut. Text is learned once either way, in prefix, suffix and middle, and
    so is the end of a middle; the marks before them are given. What is too short to be cut stays as it is.
    """

    tokenizer: "PreTrainedTokenizerBase"
    how: Infilling
    bos: int | None
    eos: int | None
    max_length: int
    overlap: int
    counts: Counter[str] = field(default_factory=Counter)
    """How many documents or pieces were rearranged, the suffix first in some; too short; or no Python."""

    def __post_init__(self) -> None:
        self._encoder = PartEncoder(self.tokenizer)
        self._plain = self._cutter(self.overlap)
        self._last: tuple[Stretch, Drawn] | None = None
        """The last piece of the document so far, of which it is not known whether it is the last of all."""
        self._before: NDArray[np.int32] = np.zeros(0, np.int32)
        """The token before the next stretch, context where there is no BOS."""

    def push(self, stretch: Stretch) -> Iterator[Piece]:
        """The pieces that are full with this further stretch of the document."""
        if len(stretch.token_ids_T):
            yield from self._contexts(stretch) if self.how.level == "context" else self._document(stretch)

    def end(self, *, complete: bool = True) -> Iterator[Piece]:
        """What is left of the document; with its end, if it is `complete`."""
        yield from self._flush(is_end=complete)
        self._before = np.zeros(0, np.int32)
        yield from self._plain.end(complete=complete)

    def _document(self, stretch: Stretch) -> Iterator[Piece]:
        rng = generator(stretch.text, self.how.seed)
        drawn = self._draw(stretch, 0, len(stretch.token_ids_T), rng, self._nodes(stretch))
        if drawn.middle is None:
            yield from self._plain.push(stretch)
        else:
            # What a long document had before is over here: its next text does not go on from it, nor its end.
            yield from self._plain.end(complete=False)
            cutter = self._cutter(self.overlap)
            row = Stretch(*self._arranged(self._parts(stretch, drawn), drawn))
            pieces = [*cutter.push(row), *cutter.end(complete=False)]
            yield from (piece._replace(given=self.how.format.given) for piece in pieces)
        self._before = stretch.token_ids_T[-1:]

    def _contexts(self, stretch: Stretch) -> Iterator[Piece]:
        yield from self._flush(is_end=False)
        rng = generator(stretch.text, self.how.seed)
        nodes = self._nodes(stretch)
        num, room = len(stretch.token_ids_T), self.max_length - 1 - NUM_MARKS
        some = [self._draw(stretch, first, min(num, first + room), rng, nodes) for first in range(0, num, room)]
        for drawn in some[:-1]:
            yield from self._piece(stretch, drawn, is_end=False)
        self._last = (stretch, some[-1])

    def _flush(self, *, is_end: bool) -> Iterator[Piece]:
        if self._last is not None:
            yield from self._piece(*self._last, is_end=is_end)
            self._last = None

    def _piece(self, stretch: Stretch, drawn: Drawn, *, is_end: bool) -> Iterator[Piece]:
        own = slice(drawn.first, drawn.last)
        before = self._before
        self._before = stretch.token_ids_T[own][-1:]
        if drawn.middle is not None:
            token_ids_L, num_bytes_L = self._arranged(self._parts(stretch, drawn), drawn)
            if len(token_ids_L) + (self.bos is not None) > self.max_length:
                # Cut anew, its tokens have become more than the piece holds; between those it had they have not.
                drawn = self._between_tokens(stretch, drawn)
                token_ids_L, num_bytes_L = self._arranged(self._token_parts(stretch, drawn), drawn)
            bos = np.array([] if self.bos is None else [self.bos], np.int32)
            row = np.concatenate([bos, token_ids_L])
            yield Piece(row, len(bos), int(num_bytes_L.sum()), self.how.format.given)
            return
        context = before if self.bos is None else np.array([self.bos], np.int32)
        eos = np.array([self.eos] if is_end and self.eos is not None else [], np.int32)
        token_ids_L = np.concatenate([context, stretch.token_ids_T[own], eos])
        num_context = max(1, len(context))
        skipped = 0 if len(context) else int(stretch.num_bytes_T[drawn.first])
        if num_context < len(token_ids_L):
            yield Piece(token_ids_L, num_context, int(stretch.num_bytes_T[own].sum()) - skipped)

    def _nodes(self, stretch: Stretch) -> NDArray[np.int64] | None:
        if self.how.cut != "syntax":
            return None
        nodes = node_spans(stretch.text)
        self.counts[NO_PYTHON] += nodes is None
        return nodes

    def _draw(
        self, stretch: Stretch, first: int, last: int, rng: random.Random, nodes_N2: NDArray[np.int64] | None
    ) -> Drawn:
        """The middle of a piece, or none; the draws that decide it are made in either case."""
        is_cut, suffix_first = rng.random() < self.how.fim_rate, rng.random() < self.how.spm_rate
        if not is_cut:
            return Drawn(first, last, None)
        middle = self._draw_middle(stretch, first, last, rng, nodes_N2)
        self.counts[TOO_SHORT if middle is None else CUT] += 1
        self.counts[SUFFIX_FIRST] += middle is not None and suffix_first
        return Drawn(first, last, middle, suffix_first)

    def _draw_middle(
        self, stretch: Stretch, first: int, last: int, rng: random.Random, nodes_N2: NDArray[np.int64] | None
    ) -> tuple[int, int] | None:
        if self.how.cut == "token":
            span = draw_span(last - first, rng, longest=self.how.longest)
            return None if span is None else (first + span[0], first + span[1])
        start, stop = _characters(stretch, first, last)
        if nodes_N2 is not None:
            node = draw_node(nodes_N2, start, stop, rng)
            if node is not None:
                return node
        text = stretch.text[start:stop]
        if self.how.cut == "character":
            found = draw_characters(text, rng, longest=self.how.longest)
        else:
            # Pieces are cut between tokens: their first and last lines may be parts of lines.
            goes_on = start > 0 and stretch.text[start - 1] != "\n"
            is_cut = stop < len(stretch.text) and stretch.text[stop - 1] != "\n"
            found = draw_lines(text, rng, longest=self.how.longest, goes_on=goes_on, is_cut=is_cut)
        return None if found is None else (start + found[0], start + found[1])

    def _parts(self, stretch: Stretch, drawn: Drawn) -> tuple[Encoded, Encoded, Encoded]:
        """Prefix, suffix and middle."""
        assert drawn.middle is not None
        if self.how.cut == "token":
            return self._token_parts(stretch, drawn)
        start, stop = _characters(stretch, drawn.first, drawn.last)
        left, right = drawn.middle
        prefix, middle, suffix = stretch.text[start:left], stretch.text[left:right], stretch.text[right:stop]
        is_first = start == 0 and not len(self._before)
        if drawn.suffix_first and self.how.format.joins:
            # No token is broken between the two: they are one text.
            texts, goes_on = ["", suffix, prefix + middle], [not is_first, True, not is_first]
        else:
            texts, goes_on = [prefix, suffix, middle], [not is_first, True, True]
        first, second, third = self._encoder.encode(texts, goes_on=goes_on)
        return first, second, third

    def _token_parts(self, stretch: Stretch, drawn: Drawn) -> tuple[Encoded, Encoded, Encoded]:
        assert drawn.middle is not None
        left, right = drawn.middle
        spans = (slice(drawn.first, left), slice(right, drawn.last), slice(left, right))
        prefix, suffix, middle = (
            Encoded(stretch.token_ids_T[span], stretch.num_bytes_T[span], stretch.ends_T[span]) for span in spans
        )
        return prefix, suffix, middle

    def _between_tokens(self, stretch: Stretch, drawn: Drawn) -> Drawn:
        assert drawn.middle is not None
        left, right = (int(np.searchsorted(stretch.ends_T, place, side="right")) for place in drawn.middle)
        left = min(max(left, drawn.first), drawn.last - 1)
        return drawn._replace(middle=(left, max(left + 1, min(right, drawn.last))))

    def _arranged(
        self, parts: tuple[Encoded, Encoded, Encoded], drawn: Drawn
    ) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Tokens of the row, and the bytes that each stands for."""
        ids = arrange(
            *(part.token_ids_T for part in parts), marks=self.how.format.marks, suffix_first=drawn.suffix_first
        )
        num_bytes = arrange(*(part.num_bytes_T for part in parts), marks=(0, 0, 0, 0), suffix_first=drawn.suffix_first)
        return ids, num_bytes

    def _cutter(self, overlap: int) -> Cutter:
        return Cutter(bos=self.bos, eos=self.eos, max_length=self.max_length, overlap=overlap)


def _characters(stretch: Stretch, first: int, last: int) -> tuple[int, int]:
    """Characters of a stretch's text that some of its tokens stand for; together they are all of it."""
    start = int(stretch.ends_T[first - 1]) if first else 0
    stop = int(stretch.ends_T[last - 1]) if last < len(stretch.token_ids_T) else len(stretch.text)
    return start, stop
