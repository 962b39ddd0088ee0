"""Texts rearranged for infilling: the middle moves to the end, so that a model learns to fill holes.

Source: Bavarian et al. 2022 (arXiv:2207.14255), sections 3 and 4.

Shapes: T tokens of a stretch, L tokens of a piece.
"""

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ftk.data.infill_cuts import Cut, Level, draw_characters, draw_lines, draw_span, generator
from ftk.data.infill_format import InfillFormat
from ftk.data.infill_rows import NUM_MARKS, Parts, Row, row_of
from ftk.data.infill_syntax import draw_node, node_spans
from ftk.data.pieces import Cutter, Piece, Stretch
from ftk.data.tokens import Encoded, PartEncoder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

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
    context_weight: float = 1.0
    """Loss weight of prefix and suffix; that of a middle, its end and all that is not rearranged is 1."""


class Drawn(NamedTuple):
    """What the draws made of tokens `[first, last)` of a stretch."""

    first: int
    last: int
    middle: tuple[int, int] | None
    """First and last border, tokens of the stretch under `cut: token` and else characters; None: it is not cut."""
    suffix_first: bool = False


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
            row = self._arranged(self._parts(stretch, drawn), drawn)
            pieces = [*cutter.push(Stretch(row.token_ids_T, row.num_bytes_T)), *cutter.end(complete=False)]
            # Without a BOS nothing comes before the first token. All others are learned once, in their order.
            at = int(self.bos is None)
            for piece in pieces:
                yield piece._replace(given=self.how.format.given).weighted(row.weights_T[at:])
                at += len(piece.token_ids_L) - piece.num_context
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
            row = self._arranged(self._parts(stretch, drawn), drawn)
            if len(row.token_ids_T) + (self.bos is not None) > self.max_length:
                # Cut anew, its tokens have become more than the piece holds; between those it had they have not.
                drawn = self._between_tokens(stretch, drawn)
                row = self._arranged(self._token_parts(stretch, drawn), drawn)
            bos = np.array([] if self.bos is None else [self.bos], np.int32)
            piece = Piece(
                np.concatenate([bos, row.token_ids_T]), len(bos), int(row.num_bytes_T.sum()), self.how.format.given
            )
            yield piece.weighted(row.weights_T)
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

    def _parts(self, stretch: Stretch, drawn: Drawn) -> Parts:
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
        num_before = len(texts[2]) - len(middle)
        # A token that is a part of both is the middle's.
        return Parts(first, second, third, int(np.searchsorted(third.ends_T, num_before, side="right")))

    def _token_parts(self, stretch: Stretch, drawn: Drawn) -> Parts:
        assert drawn.middle is not None
        left, right = drawn.middle
        spans = (slice(drawn.first, left), slice(right, drawn.last), slice(left, right))
        first, second, third = (
            Encoded(stretch.token_ids_T[span], stretch.num_bytes_T[span], stretch.ends_T[span]) for span in spans
        )
        return Parts(first, second, third)

    def _between_tokens(self, stretch: Stretch, drawn: Drawn) -> Drawn:
        assert drawn.middle is not None
        left, right = (int(np.searchsorted(stretch.ends_T, place, side="right")) for place in drawn.middle)
        left = min(max(left, drawn.first), drawn.last - 1)
        return drawn._replace(middle=(left, max(left + 1, min(right, drawn.last))))

    def _arranged(self, parts: Parts, drawn: Drawn) -> Row:
        how = self.how
        return row_of(parts, marks=how.format.marks, suffix_first=drawn.suffix_first, context_weight=how.context_weight)

    def _cutter(self, overlap: int) -> Cutter:
        return Cutter(bos=self.bos, eos=self.eos, max_length=self.max_length, overlap=overlap)


def _characters(stretch: Stretch, first: int, last: int) -> tuple[int, int]:
    """Characters of a stretch's text that some of its tokens stand for; together they are all of it."""
    start = int(stretch.ends_T[first - 1]) if first else 0
    stop = int(stretch.ends_T[last - 1]) if last < len(stretch.token_ids_T) else len(stretch.text)
    return start, stop
