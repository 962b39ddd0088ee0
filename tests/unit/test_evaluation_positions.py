"""Perplexity by position, and passkey retrieval: by hand, and on models that know or do not know."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoTokenizer

import ftk
from ftk.core.errors import RecipeError
from ftk.core.types import Batch, TokenScores
from ftk.evaluation.heatmap import cells_of, draw_heatmaps
from ftk.evaluation.passkey import FILLER, Passkey, passkey_metrics, passkey_row, passkey_rows
from ftk.evaluation.positions import bucket_starts, position_metrics

TINY = Path(ftk.__file__).parent / "models" / "tiny"


class Knows(nn.Module):
    """Gives each token the log-probability `-position / 100`, and is right where `right` says."""

    def __init__(self, right: str = "all") -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.right = right

    def forward(self, batch: Batch) -> TokenScores:
        correct_BL = batch.answers_BL.clone()
        if self.right == "not the last":
            correct_BL[:, -1] = False
        elif self.right == "early keys":
            correct_BL &= torch.tensor([_depth(row) < 0.5 for row in batch.input_ids_BL])[:, None]
        return TokenScores(logps_BL=-batch.position_ids_BL / 100.0, correct_BL=correct_BL)


def _depth(row: Tensor) -> float:
    text = tokenizer().decode(row)
    return text.index("The pass key is") / text.index("\nWhat is the pass key?")


def tokenizer():
    return AutoTokenizer.from_pretrained(TINY)


def batch_of(lengths: list[int]) -> Batch:
    """Documents of these lengths in one packed row."""
    positions = torch.cat([torch.arange(length) for length in lengths])[None]
    documents = torch.cat([torch.full((length,), n + 1) for n, length in enumerate(lengths)])[None]
    weights = (positions > 0).float()
    return Batch(
        input_ids_BL=torch.ones_like(positions),
        position_ids_BL=positions,
        document_ids_BL=documents,
        weights_BL=weights,
        answers_BL=weights > 0,
        packed=True,
        num_tokens=sum(lengths),
        num_examples=len(lengths),
        indices=tuple(range(len(lengths))),
    )


def test_perplexity_by_position_by_hand() -> None:
    assert bucket_starts(5) == [0, 128, 256, 512, 1024]
    figures = position_metrics(Knows(), [batch_of([300]), batch_of([100, 130])])
    assert list(figures) == ["perplexity_from_0", "perplexity_from_128", "perplexity_from_256"]
    first = [*range(1, 128), *range(1, 100), *range(1, 128)]
    second = [*range(128, 256), 128, 129]
    assert figures["perplexity_from_0"] == pytest.approx(math.exp(sum(first) / len(first) / 100), rel=1e-5)
    assert figures["perplexity_from_128"] == pytest.approx(math.exp(sum(second) / len(second) / 100), rel=1e-5)
    assert figures["perplexity_from_256"] == pytest.approx(math.exp(sum(range(256, 300)) / 44 / 100), rel=1e-5)


@pytest.mark.parametrize("length", [120, 333, 1024])
@pytest.mark.parametrize("depth", [0.0, 0.3, 1.0])
def test_a_row_has_exactly_its_length_and_the_key_at_its_depth(length: int, depth: float) -> None:
    row = passkey_row(tokenizer(), length=length, depth=depth, key="70312")
    assert len(row.token_ids) == length
    text = tokenizer().decode(row.token_ids)
    assert text.count("70312") == 3
    assert text.endswith("What is the pass key? The pass key is 70312")
    assert tokenizer().decode(row.token_ids[-row.num_answer_tokens :]) == " 70312"
    before, after = text.split("The pass key is 70312. Remember it. 70312 is the pass key. ")
    filled = [len(part.split("keep it in mind.\n")[-1].split("\nWhat")[0]) for part in (before, after)]
    assert filled[0] / sum(filled) == pytest.approx(depth, abs=0.1)


def test_rows_depend_on_seed_length_and_depth_alone() -> None:
    rows = passkey_rows(tokenizer(), length=200, depth=0.5, count=3, seed=1)
    assert rows == passkey_rows(tokenizer(), length=200, depth=0.5, count=3, seed=1)
    assert rows != passkey_rows(tokenizer(), length=200, depth=0.5, count=3, seed=2)
    assert len({tuple(row.token_ids) for row in rows}) == 3


def test_too_few_tokens_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"30 tokens cannot hold the pass key and the question, which take \d+"):
        passkey_row(tokenizer(), length=30, depth=0.5, key="12345")
    assert FILLER.endswith(" ")


@pytest.mark.parametrize(("right", "share"), [("all", 1.0), ("not the last", 0.0), ("early keys", 0.5)])
def test_a_key_is_found_where_all_of_it_is(right: str, share: float, tmp_path: Path) -> None:
    figures = passkey_metrics(
        Knows(right),
        tokenizer(),
        Passkey(depths=(0.0, 1.0), rows=3),
        lengths=(128, 256),
        tokens_per_batch=300,
        seed=0,
        device=torch.device("cpu"),
    )
    assert figures["passkey"] == figures["passkey_128"] == figures["passkey_256"] == share
    cells = cells_of(figures)
    assert set(cells) == {(128, 0.0), (128, 1.0), (256, 0.0), (256, 1.0)}
    if right == "early keys":
        assert cells[256, 0.0] == 1
        assert cells[256, 1.0] == 0
    draw_heatmaps(tmp_path / "passkey.png", {"before": cells, "after": cells})
    assert (tmp_path / "passkey.png").read_bytes().startswith(b"\x89PNG")
