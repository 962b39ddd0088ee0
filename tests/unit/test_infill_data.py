"""Texts rearranged for infilling: nothing lost, nothing broken, each family's own order of tokens."""

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from infill_tokenizers import FAMILIES, like_sentencepiece, of_bytes, of_family
from transformers import PreTrainedTokenizerFast

from ftk.data.infill import CUT, NO_PYTHON, SUFFIX_FIRST, TOO_SHORT, InfillCutter, Infilling
from ftk.data.infill_format import add_format, find_format
from ftk.data.infill_prompt import InfillPrompts
from ftk.data.pieces import Piece, Stretch
from ftk.data.tokens import PartEncoder, encode_texts

TEXT = "".join(f"def area_{n}(width, number):\n    other = width * {n}\n    return other\n\n" for n in range(12))
CUTS = ("character", "token", "line", "syntax")


def rearranged(
    tokenizer: PreTrainedTokenizerFast,
    texts: Sequence[str],
    *,
    bos: int | None = None,
    max_length: int = 64,
    overlap: int = 0,
    **how: Any,
) -> tuple[list[Piece], InfillCutter]:
    found = find_format(tokenizer)
    assert found is not None
    settings = {"fim_rate": 1.0, "spm_rate": 0.5, "cut": "character", "level": "context", "seed": 0, **how}
    cutter = InfillCutter(
        tokenizer, Infilling(found, **settings), bos, tokenizer.eos_token_id, max_length=max_length, overlap=overlap
    )
    pieces = []
    for text in texts:
        pieces += cutter.push(Stretch(*encode_texts(tokenizer, [text])[0], text))
        pieces += cutter.end()
    return pieces, cutter


def parts(piece: Sequence[int], marks: Sequence[int]) -> tuple[list[int], list[int], list[int], bool]:
    """Prefix, suffix and middle by their marks, and whether the suffix comes first: the prefix then holds both."""
    pre, suf, mid, end = marks
    assert piece[-1] == end
    row = list(piece[piece.index(pre) + 1 : -1])
    suffix_first = row[0] == suf
    at_suffix, at_middle = row.index(suf), row.index(mid)
    if suffix_first:
        return row[at_middle + 1 :], row[1:at_middle], [], True
    return row[:at_suffix], row[at_suffix + 1 : at_middle], row[at_middle + 1 :], False


@pytest.mark.parametrize("name", FAMILIES)
def test_each_family_is_found_and_written_as_its_authors_do(name: str) -> None:
    """Against the published layouts, with the texts tokenized by the tokenizer itself."""
    tokenizer = of_family(name)
    pre, suf, mid, end = tokenizer.convert_tokens_to_ids(list(FAMILIES[name]))
    found = find_format(tokenizer)
    assert found is not None
    assert (found.family, found.marks) == (name, (pre, suf, mid, end))
    text = "ab(there)\n"
    (psm,), _ = rearranged(tokenizer, [text], spm_rate=0.0, seed=3)
    (spm,), _ = rearranged(tokenizer, [text], spm_rate=1.0, seed=3)
    for piece, suffix_first in ((psm, False), (spm, True)):
        row = piece.token_ids_L.tolist()
        prefix, suffix, middle, is_first = parts(row, found.marks)
        assert is_first is suffix_first
        assert row.index(pre) == 0
        together = tokenizer.decode([*prefix, *middle, *suffix])
        assert together == text
        assert piece.is_learned_L.tolist() == [token not in (pre, suf, mid) for token in row]
        assert piece.num_bytes == len(text.encode())


def test_a_suffix_and_a_middle_have_no_blank_of_their_own() -> None:
    """Rozière et al. 2023, section 2.3: the blank that SentencePiece puts before any text is not put before these."""
    tokenizer = like_sentencepiece(FAMILIES["CodeLlama"])
    encoder = PartEncoder(tokenizer)
    first, goes_on = encoder.encode(["ab", "ab"], goes_on=[False, True])
    assert tokenizer.convert_ids_to_tokens(first.token_ids_T.tolist()) == ["▁a", "b"]
    assert tokenizer.convert_ids_to_tokens(goes_on.token_ids_T.tolist()) == ["a", "b"]
    assert (first.num_bytes_T.sum(), goes_on.num_bytes_T.sum()) == (2, 2)
    blank = encoder.encode([" a"], goes_on=[True])[0].token_ids_T.tolist()
    assert encoder.decode(blank) == " a"
    prompt = InfillPrompts(tokenizer).prompt("ab", "ab")
    assert tokenizer.convert_ids_to_tokens(prompt) == ["<s>", "▁<PRE>", "▁a", "b", "▁<SUF>", "a", "b", "▁<MID>"]


def test_code_llama_tokenizes_prefix_and_middle_as_one_with_the_suffix_first() -> None:
    """Each pair of letters is one token: a cut within one breaks it, unless both of its sides are one text."""
    broken = {}
    for name in ("CodeLlama", "StarCoder"):
        tokenizer = of_bytes(FAMILIES[name])
        found = find_format(tokenizer)
        assert found is not None
        letter = tokenizer.convert_tokens_to_ids("b")
        rows = [rearranged(tokenizer, ["ab" * 12], spm_rate=1.0, seed=seed)[0][0] for seed in range(8)]
        broken[name] = [parts(row.token_ids_L.tolist(), found.marks)[0].count(letter) for row in rows]
    assert not any(broken["CodeLlama"])
    assert any(broken["StarCoder"])


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("bos", [None, 7])
def test_at_the_context_level_no_piece_is_broken_and_no_text_lost(cut: str, bos: int | None) -> None:
    tokenizer = of_bytes(FAMILIES["StarCoder"])
    marks = find_format(tokenizer).marks
    pieces, cutter = rearranged(tokenizer, [TEXT], bos=bos, cut=cut, fim_rate=0.7)
    texts = []
    for piece in pieces:
        row = piece.token_ids_L.tolist()
        assert len(row) <= 64
        if marks[0] in row:
            prefix, suffix, middle, _ = parts(row, marks)
            texts.append(tokenizer.decode([*prefix, *middle, *suffix]))
            assert row.index(marks[0]) == (bos is not None)
        else:
            own = row[1:] if bos is not None or texts else row
            texts.append(tokenizer.decode([token for token in own if token != tokenizer.eos_token_id]))
    assert "".join(texts) == TEXT
    assert 0 < cutter.counts[CUT] < len(pieces)
    assert 0 < cutter.counts[SUFFIX_FIRST] < cutter.counts[CUT]
    assert sum(piece.num_bytes for piece in pieces) == len(TEXT) - (
        bos is None and marks[0] not in pieces[0].token_ids_L
    )


def test_a_piece_that_new_tokens_make_too_long_is_cut_between_the_old_ones() -> None:
    """Every pair is one token: a cut within one makes two of it, and a full piece overflows."""
    tokenizer = of_bytes(FAMILIES["StarCoder"])
    marks = find_format(tokenizer).marks
    pieces, _ = rearranged(tokenizer, ["ab" * 600], bos=7, max_length=32, spm_rate=0.0)
    # BOS, 27 tokens, three marks and the end; one more for each token that a cut had broken.
    assert {len(piece.token_ids_L) for piece in pieces[:-1]} == {32}
    decoded = ""
    for piece in pieces:
        prefix, suffix, middle, _ = parts(piece.token_ids_L.tolist(), marks)
        decoded += tokenizer.decode([*prefix, *middle, *suffix])
    assert decoded == "ab" * 600


def test_at_the_document_level_the_document_is_rearranged_and_then_cut() -> None:
    tokenizer = of_bytes(FAMILIES["StarCoder"])
    marks = find_format(tokenizer).marks
    pieces, _ = rearranged(tokenizer, [TEXT], level="document", spm_rate=0.0, overlap=8)
    row = [token for piece in pieces for token in piece.token_ids_L[piece.num_context :].tolist()]
    # Without a BOS the first token is context: the mark before the prefix.
    prefix, suffix, middle, _ = parts([marks[0], *row], marks)
    assert tokenizer.decode([*prefix, *middle, *suffix]) == TEXT
    assert [piece.num_context for piece in pieces] == [1] + [8] * (len(pieces) - 1)
    assert sum(piece.num_bytes for piece in pieces) == len(TEXT)


def test_a_document_that_comes_in_stretches_stays_in_its_order_and_ends_once() -> None:
    """Plain and rearranged stretches of one document: none is joined over another, and its end comes last."""
    tokenizer = like_sentencepiece(FAMILIES["CodeLlama"])
    found = find_format(tokenizer)
    assert found is not None
    blank = tokenizer.convert_tokens_to_ids("▁a")
    how = Infilling(found, 0.5, 0.0, "line", "document", seed=0)
    texts = [f"abcd{n}\nefgh\nijkl\n" for n in range(12)]
    cutter = InfillCutter(tokenizer, how, tokenizer.bos_token_id, tokenizer.eos_token_id, max_length=512, overlap=0)
    pieces = [piece for text in texts for piece in cutter.push(Stretch(*encode_texts(tokenizer, [text])[0], text))]
    pieces += cutter.end()
    rows = [piece.token_ids_L.tolist() for piece in pieces]
    assert 1 < cutter.counts[CUT] < len(texts)
    said = []
    for row in rows:
        if found.prefix in row:
            prefix, suffix, middle, _ = parts(row, found.marks)
            # Only the beginning of the document has the blank before it that SentencePiece gives to any text.
            assert blank not in prefix + suffix + middle or not said
            said.append(tokenizer.decode([*prefix, *middle, *suffix]))
        else:
            said.append(tokenizer.decode([token for token in row[1:] if token != tokenizer.eos_token_id]))
    together = "".join(said).replace(" ", "")
    assert together == "".join(texts)
    ends = [row for row in rows if tokenizer.eos_token_id in row]
    assert ends == ([] if found.prefix in rows[-1] else rows[-1:])


def test_lines_nodes_and_tokens_are_where_the_cuts_lie() -> None:
    tokenizer = of_bytes(FAMILIES["StarCoder"])
    marks = find_format(tokenizer).marks

    def middles(cut: str, **how: Any) -> list[str]:
        pieces, _ = rearranged(tokenizer, [TEXT], cut=cut, spm_rate=0.0, **how)
        return [tokenizer.decode(parts(piece.token_ids_L.tolist(), marks)[2]) for piece in pieces]

    lines = TEXT.splitlines(keepends=True)
    for seed in range(5):
        (middle,) = middles("line", max_length=4096, seed=seed)
        assert set(middle.splitlines(keepends=True)) <= set(lines)
        (middle,) = middles("line", max_length=4096, seed=seed, longest=1)
        assert middle in lines
    nodes = middles("syntax", max_length=256)
    assert all(compile(middle, "node", "exec") for middle in nodes)
    assert not any(middle[:1].isspace() for middle in nodes)


def test_what_is_no_python_is_cut_at_lines_and_what_is_too_short_stays() -> None:
    tokenizer = of_bytes(FAMILIES["StarCoder"])
    prose = "This is no Python.\nNor is this one.\nNor that.\n"
    pieces, cutter = rearranged(tokenizer, [prose, "x = (\n"], cut="syntax", spm_rate=0.0)
    assert (cutter.counts[NO_PYTHON], cutter.counts[CUT], cutter.counts[TOO_SHORT]) == (2, 1, 1)
    assert pieces[-1].token_ids_L.tolist() == [
        *encode_texts(tokenizer, ["x = (\n"])[0].token_ids_T.tolist(),
        tokenizer.eos_token_id,
    ]
    middle = parts(pieces[0].token_ids_L.tolist(), find_format(tokenizer).marks)[2]
    assert set(tokenizer.decode(middle).splitlines()) <= set(prose.splitlines())


def test_draws_depend_on_the_text_and_the_seed_alone() -> None:
    tokenizer = of_bytes(FAMILIES["StarCoder"])
    rows = [
        [piece.token_ids_L.tolist() for piece in rearranged(tokenizer, texts, seed=seed)[0]]
        for texts, seed in (([TEXT], 0), (["Another one.\n" * 5, TEXT], 0), ([TEXT], 1))
    ]
    assert rows[1][-len(rows[0]) :] == rows[0]
    assert rows[2] != rows[0]


def test_spans_are_uniform_and_never_empty_nor_all() -> None:
    from ftk.data.infill_cuts import draw_span

    rng = random.Random(0)
    found = [draw_span(3, rng) for _ in range(6000)]
    counts = {span: found.count(span) for span in set(found)}
    assert set(counts) == {(0, 1), (1, 2), (2, 3), (0, 2), (1, 3)}
    np.testing.assert_allclose(list(counts.values()), 1200, rtol=0.15)
    assert {draw_span(3, rng, longest=1) for _ in range(50)} == {(0, 1), (1, 2), (2, 3)}
    assert draw_span(1, rng) is None


def test_tokens_are_added_where_there_are_none() -> None:
    tokenizer = of_bytes()
    before = len(tokenizer)
    assert find_format(tokenizer) is None
    found, added = add_format(tokenizer)
    assert added == ("<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>")
    assert sorted(found.given) == list(range(before, before + 3))
    assert found.end == tokenizer.eos_token_id
    # A text that spells one out does not mean it.
    assert not set(encode_texts(tokenizer, ["<|fim_prefix|>x"])[0].token_ids_T.tolist()) & set(found.given)
