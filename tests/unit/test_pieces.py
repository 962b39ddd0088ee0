"""Documents cut into pieces: every token is learned once, whatever the length and the overlap."""

from typing import Any

import numpy as np
import pytest

from ftk.data.pieces import Cutter, Piece, Stretch

BOS, EOS = 1, 2


def cut(tokens: list[int], *, stretches: int = 1, complete: bool = True, **how: Any) -> list[Piece]:
    cutter = Cutter(**{"bos": BOS, "eos": EOS, "max_length": 8, "overlap": 0, **how})
    pieces = [
        piece
        for part in np.array_split(np.array(tokens, np.int32), stretches)
        for piece in cutter.push(Stretch(part, np.full(len(part), 3)))
    ]
    return [*pieces, *cutter.end(complete=complete)]


def shown(pieces: list[Piece]) -> list[tuple[list[int], int, int]]:
    return [(piece.token_ids_L.tolist(), piece.num_context, piece.num_bytes) for piece in pieces]


def test_by_hand() -> None:
    assert shown(cut([10, 11, 12])) == [([1, 10, 11, 12, 2], 1, 9)]
    # 10 tokens and the end: the second piece repeats two tokens for context.
    assert shown(cut(list(range(10, 20)), overlap=2)) == [
        ([1, 10, 11, 12, 13, 14, 15, 16], 1, 21),
        ([1, 15, 16, 17, 18, 19, 2], 3, 9),
    ]
    # Without a BOS the first token is learned nowhere, and each further piece has the one before for context.
    assert shown(cut(list(range(10, 20)), bos=None)) == [
        ([10, 11, 12, 13, 14, 15, 16, 17], 1, 21),
        ([17, 18, 19, 2], 1, 6),
    ]
    assert shown(cut([10, 11], complete=False)) == [([1, 10, 11], 1, 6)]
    assert cut([10], bos=None, eos=None) == []
    assert cut([]) == []


@pytest.mark.parametrize("bos", [BOS, None])
@pytest.mark.parametrize("eos", [EOS, None])
@pytest.mark.parametrize("overlap", [0, 1, 3, 4])
@pytest.mark.parametrize("length", [2, 6, 7, 8, 9, 14, 15, 16, 40])
def test_every_token_is_learned_once_with_the_context_before_it(
    bos: int | None, eos: int | None, overlap: int, length: int
) -> None:
    tokens = list(range(10, 10 + length))
    whole = [*([bos] if bos else []), *tokens, *([eos] if eos else [])]
    for stretches in (1, 2, length):
        pieces = cut(tokens, bos=bos, eos=eos, overlap=overlap, stretches=stretches)
        learned = [token for piece in pieces for token in piece.token_ids_L[piece.num_context :].tolist()]
        assert learned == whole[1:]
        assert all(len(piece.token_ids_L) <= 8 for piece in pieces)
        assert sum(piece.num_bytes for piece in pieces) == 3 * (length - (bos is None))
        for piece in pieces[1:]:
            context = piece.token_ids_L[bos is not None : piece.num_context].tolist()
            place = whole.index(int(piece.token_ids_L[piece.num_context]))
            assert context == whole[place - len(context) : place]
            assert len(context) == (overlap if bos else max(1, overlap))
            assert bos is None or piece.token_ids_L[0] == bos


def test_a_document_begins_without_what_was_before() -> None:
    cutter = Cutter(bos=BOS, eos=EOS, max_length=8, overlap=3)
    for _ in range(2):
        pieces = [*cutter.push(Stretch(np.arange(10, 20, dtype=np.int32), np.ones(10, np.int64))), *cutter.end()]
        assert [piece.num_context for piece in pieces] == [1, 4]
