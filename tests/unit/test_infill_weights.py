"""Prefix and suffix may weigh less than middles: in which tokens, wherever rows are cut, and what is measured."""

import math

import numpy as np
import pytest
import torch
from infill_tokenizers import FAMILIES, of_bytes, of_family
from transformers import PreTrainedTokenizerFast

from ftk.core.types import NUM_BYTES, Batch, TokenScores
from ftk.data.infill import InfillCutter, Infilling
from ftk.data.infill_format import find_format
from ftk.data.pieces import Piece, Stretch
from ftk.data.tokens import encode_texts
from ftk.objectives.infill import Infill

TEXT = "".join(f"def area_{n}(width, number):\n    other = width * {n}\n    return other\n\n" for n in range(12))


def pieces_of(
    tokenizer: PreTrainedTokenizerFast, text: str, *, bos: int | None = None, max_length: int = 64, **how: object
) -> tuple[list[Piece], tuple[int, int, int, int]]:
    found = find_format(tokenizer)
    assert found is not None
    settings = {"fim_rate": 1.0, "spm_rate": 0.0, "cut": "character", "level": "context", "seed": 0, **how}
    cutter = InfillCutter(
        tokenizer, Infilling(found, **settings), bos, tokenizer.eos_token_id, max_length=max_length, overlap=0
    )
    pieces = [*cutter.push(Stretch(*encode_texts(tokenizer, [text])[0], text)), *cutter.end()]
    return pieces, found.marks


def expected(row: list[int], marks: tuple[int, int, int, int], weight: float) -> list[float]:
    """Of a whole row in which no prefix stands between the last mark and the middle."""
    at_middle = max(row.index(mark) for mark in marks[:3])
    before = [0.0 if token in marks else weight for token in row[:at_middle]]
    return [*before, 0.0, *[1.0] * (len(row) - at_middle - 1)]


@pytest.mark.parametrize("bos", [None, 7])
def test_prefix_and_suffix_weigh_what_is_asked_middles_and_ends_one(bos: int | None) -> None:
    tokenizer = of_bytes(FAMILIES["StarCoder"])
    pieces, marks = pieces_of(tokenizer, TEXT, bos=bos, context_weight=0.25)
    assert len(pieces) > 10
    for piece in pieces:
        row = piece.token_ids_L.tolist()
        num_bos = int(bos is not None)
        assert piece.weights_L.tolist() == [0.0] * num_bos + expected(row[num_bos:], marks, 0.25)
        assert piece.is_learned_L.tolist() == (piece.weights_L > 0).tolist()


def test_with_the_suffix_first_the_prefix_weighs_less_than_the_middle_behind_it() -> None:
    for name in ("StarCoder", "CodeLlama"):
        tokenizer = of_family(name)
        pieces, marks = pieces_of(tokenizer, TEXT, spm_rate=1.0, context_weight=0.25, cut="line", longest=1)
        for piece in pieces:
            row, weights = piece.token_ids_L.tolist(), piece.weights_L
            at_middle = row.index(marks[2])
            learned = weights[at_middle + 1 :]
            num_prefix = int((learned == 0.25).sum())
            # The text up to the hole at a quarter, then the line and the end.
            assert learned.tolist() == [0.25] * num_prefix + [1.0] * (len(learned) - num_prefix)
            middle = tokenizer.decode(row[at_middle + 1 + num_prefix : -1])
            assert middle.strip()
            assert any(middle.strip() in line for line in TEXT.splitlines())
            assert set(weights[:at_middle].tolist()) <= {0.0, 0.25}


@pytest.mark.parametrize("bos", [None, 7])
def test_rows_that_are_cut_keep_the_weights_of_their_tokens(bos: int | None) -> None:
    tokenizer = of_bytes(FAMILIES["StarCoder"])
    (whole,), marks = pieces_of(tokenizer, TEXT, bos=bos, level="document", context_weight=0.25, max_length=4096)
    cut, _ = pieces_of(tokenizer, TEXT, bos=bos, level="document", context_weight=0.25, max_length=48)
    assert len(cut) > 5
    behind = [piece.weights_L[piece.num_context :] for piece in cut]
    assert np.concatenate(behind).tolist() == whole.weights_L[whole.num_context :].tolist()
    row = whole.token_ids_L.tolist()
    num_bos = int(bos is not None)
    wanted = expected(row[num_bos:], marks, 0.25)
    assert whole.weights_L.tolist()[num_bos:] == wanted


def test_perplexity_and_bits_are_of_all_text_whatever_it_weighs() -> None:
    """Four tokens of 1, 2, 3 and 4 nats, two at a tenth: 10 nats for 4 tokens and 8 bytes."""
    weights_BL = torch.tensor([[0.0, 0.1, 0.1, 1.0, 1.0]])
    batch = Batch(
        input_ids_BL=torch.zeros(1, 5, dtype=torch.long),
        position_ids_BL=torch.arange(5)[None],
        document_ids_BL=torch.ones(1, 5, dtype=torch.long),
        weights_BL=weights_BL,
        answers_BL=weights_BL > 0,
        packed=False,
        num_tokens=5,
        num_examples=1,
        indices=(0,),
        columns={NUM_BYTES: torch.tensor([8])},
    )
    scores = TokenScores(
        logps_BL=torch.tensor([[0.0, -1.0, -2.0, -3.0, -4.0]]), correct_BL=torch.zeros(1, 5, dtype=torch.bool)
    )
    objective = Infill(context_loss_weight=0.1).objective()
    terms = objective.terms(scores, batch, {})
    assert float(terms.sums["nll"]) / objective.weights(batch)["nll"] == pytest.approx(7.3 / 2.2)
    figures = objective.figures({name: float(value) for name, value in terms.observed.items()})
    assert figures["perplexity"] == pytest.approx(math.exp(10 / 4))
    assert figures["bits_per_byte"] == pytest.approx(10 / 8 / math.log(2))
