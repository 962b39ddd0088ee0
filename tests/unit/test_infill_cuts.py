"""Where middles of whole lines lie in a piece that begins or ends within a line."""

import random
from collections import Counter

import pytest
from infill_tokenizers import FAMILIES, of_bytes

from ftk.data.infill import InfillCutter, Infilling
from ftk.data.infill_cuts import draw_lines, draw_span
from ftk.data.infill_format import find_format
from ftk.data.pieces import Stretch
from ftk.data.tokens import encode_texts


def drawn(text: str, *, goes_on: bool = False, is_cut: bool = False, longest: int | None = 1) -> Counter[str]:
    rng = random.Random(0)
    found = [draw_lines(text, rng, longest=longest, goes_on=goes_on, is_cut=is_cut) for _ in range(600)]
    return Counter(text[span[0] : span[1]] for span in found if span is not None)


def test_parts_of_lines_are_no_middles() -> None:
    text = "rest\na\nb\npart"
    assert set(drawn(text)) == {"rest\n", "a\n", "b\n", "part"}
    assert set(drawn(text, goes_on=True)) == {"a\n", "b\n", "part"}
    assert set(drawn(text, is_cut=True)) == {"rest\n", "a\n", "b\n"}
    both = drawn(text, goes_on=True, is_cut=True)
    assert set(both) == {"a\n", "b\n"}
    assert both["a\n"] == pytest.approx(300, abs=60)
    # All whole lines together leave the parts around them.
    assert set(drawn(text, goes_on=True, is_cut=True, longest=None)) == {"a\n", "b\n", "a\nb\n"}


def test_where_no_line_is_whole_parts_are_drawn() -> None:
    assert set(drawn("rest\npart", goes_on=True, is_cut=True)) == {"rest\n", "part"}
    assert not drawn("part of a line", goes_on=True, is_cut=True)
    assert set(drawn("rest\na\n", goes_on=True)) == {"a\n"}


def test_lines_that_say_nothing_are_no_middles_unless_none_says_more() -> None:
    """As held-out holes are lines with a letter or digit: an empty line or a bare quote fills no hole that is asked."""
    text = '\n"""\na\n\n)\nb\n'
    assert set(drawn(text)) == {"a\n", "b\n"}
    assert all("a" in middle or "b" in middle for middle in drawn(text, longest=None))
    assert set(drawn("\n)\n\n", longest=1)) == {"\n", ")\n"}


def test_a_span_may_be_all_where_there_is_more_beside_it() -> None:
    rng = random.Random(0)
    assert {draw_span(2, rng, or_all=True) for _ in range(60)} == {(0, 1), (1, 2), (0, 2)}
    assert draw_span(1, rng, or_all=True) == (0, 1)
    assert draw_span(0, rng, or_all=True) is None


def test_middles_of_all_pieces_of_a_document_are_lines_of_it() -> None:
    tokenizer = of_bytes(FAMILIES["StarCoder"])
    found = find_format(tokenizer)
    assert found is not None
    lines = [f"number_{n} = {n * n}\n" for n in range(200)]
    how = Infilling(found, 1.0, 0.0, "line", "context", seed=0, longest=1)
    cutter = InfillCutter(tokenizer, how, None, tokenizer.eos_token_id, max_length=64, overlap=0)
    text = "".join(lines)
    pieces = [*cutter.push(Stretch(*encode_texts(tokenizer, [text])[0], text)), *cutter.end()]
    rows = [piece.token_ids_L.tolist() for piece in pieces]
    middles = [tokenizer.decode(row[row.index(found.middle) + 1 : -1]) for row in rows if found.middle in row]
    assert len(middles) > 30
    assert set(middles) <= set(lines)
