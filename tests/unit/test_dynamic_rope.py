"""Dynamic NTK scaling: each text by its own length, whatever lies beside it or came before."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from ftk.core.types import Batch, Example
from ftk.data.collate import collate
from ftk.models.dynamic_rope import text_lengths
from ftk.models.load import load_model
from ftk.models.rope.dynamic import dynamic_frequencies
from ftk.models.scoring import ScoringModel
from ftk.models.settings import ModelSettings

LENGTHS = (300, 40, 420)


def test_lengths_of_texts() -> None:
    positions_BL = torch.tensor([[0, 1, 2, 0, 1, 0], [0, 1, 2, 3, 4, 5], [7, 8, 0, 0, 0, 0]])
    assert text_lengths(positions_BL).tolist() == [[3, 3, 3, 2, 2, 1], [6] * 6, [9, 9, 1, 1, 1, 1]]


@pytest.fixture
def scoring(model_folder: Path) -> ScoringModel:
    settings = ModelSettings(id=str(model_folder), context={"length": 512, "scaling": "dynamic"})
    return ScoringModel(load_model(settings, dtype=torch.float32)).eval()


def examples() -> list[Example]:
    draws = torch.Generator().manual_seed(0)
    found = []
    for number, length in enumerate(LENGTHS):
        ids = torch.randint(5, 500, (length,), generator=draws).numpy().astype("int32")
        weights = torch.ones(length).index_fill(0, torch.tensor([0]), 0).numpy()
        found.append(Example(ids, weights, weights > 0, number))
    return found


def logps(scoring: ScoringModel, rows: list[list[Example]]) -> Tensor:
    batch: Batch = collate(rows, pad_token_id=0)
    with torch.no_grad():
        return scoring(batch).logps_BL[batch.weights_BL > 0]


def test_a_text_scores_the_same_alone_beside_others_packed_and_after_a_longer_one(scoring: ScoringModel) -> None:
    rows = examples()
    alone = torch.cat([logps(scoring, [[row]]) for row in rows])
    again = torch.cat([logps(scoring, [[row]]) for row in reversed(rows)][::-1])
    beside = logps(scoring, [[row] for row in rows])
    packed = logps(scoring, [[rows[0], rows[1]], [rows[2]]])
    for other in (again, beside, packed):
        torch.testing.assert_close(other, alone, rtol=0, atol=2e-5)


def test_frequencies_are_those_of_the_texts_length(scoring: ScoringModel) -> None:
    rotary = scoring.causal_lm.model.rotary_emb
    positions_BL = torch.cat([torch.arange(300), torch.arange(40)])[None]
    cos, _ = rotary(torch.zeros(1), positions_BL)
    for start, length in ((0, 300), (300, 40)):
        wanted = dynamic_frequencies(theta=10_000.0, dim=8, factor=2.0, original=256, num_tokens=length)
        last = start + length - 1
        torch.testing.assert_close(cos[0, last, :4], ((length - 1) * wanted).cos(), rtol=1e-4, atol=1e-4)
