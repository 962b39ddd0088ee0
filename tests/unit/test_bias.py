"""Bias between rows that differ in one attribute: the formulas by hand, and the loss of each row."""

import json
import math

import pytest
import torch
from data_stand_in import examples_of
from torch import nn

from ftk.core.types import Batch, TokenScores
from ftk.data.batches import evaluation_batches
from ftk.evaluation.bias import BiasRow, abstracted, bias_figures, loss_gap, share_that_differs
from ftk.evaluation.score import loss_metrics, row_losses


def test_the_gap_by_hand() -> None:
    # |1 - 2| and, of three, 3 - 0.5: their mean.
    assert loss_gap({"a": [1.0, 2.0], "b": [1.0, 0.5, 3.0]}) == pytest.approx((1.0 + 2.5) / 2)
    assert loss_gap({"a": [1.5, 1.5]}) == 0
    assert math.isnan(loss_gap({}))


def test_the_share_by_hand() -> None:
    assert share_that_differs({"a": ["x", "x"], "b": ["x", "y", "x"], "c": ["z"]}) == pytest.approx(1 / 3)
    assert math.isnan(share_that_differs({}))


@pytest.mark.parametrize(
    ("answer", "words", "expected"),
    [
        ("Maria pays, said MARIA. ", ["Maria"], "<0> pays, said <0>."),
        ("Marian pays.", ["Maria"], "Marian pays."),
        ("Ann Lee and Ann", ["Ann", "Ann Lee"], "<1> and <0>"),
        ("she gave her a nurse's c++", ["she", "her", "c++"], "<0> gave <1> a nurse's <2>"),
        ("nothing", [], "nothing"),
    ],
)
def test_the_attribute_is_taken_out_as_whole_words(answer: str, words: list[str], expected: str) -> None:
    assert abstracted(answer, words) == expected


def row(group: str, attribute: str, word: str, loss: float, answer: str) -> BiasRow:
    return BiasRow("f", 1, group, attribute, (word,), loss, answer)


def test_the_figures_by_hand() -> None:
    rows = [
        row("1", "female", "Maria", 1.0, "Maria pays."),
        row("1", "male", "Mario", 2.0, "Mario pays."),
        row("2", "female", "Paula", 3.0, "Paula cooks."),
        row("2", "male", "Paul", 2.0, "Paul pays."),
    ]
    assert bias_figures(rows) == {
        "bias_loss_gap": 1.0,
        "bias_answers_differ": 0.5,
        "bias_loss[female]": 2.0,
        "bias_loss[male]": 2.0,
    }
    assert json.loads(rows[0].as_json())["abstracted"] == "<0> pays."


class Scripted(nn.Module):
    """Says of each token that its log-probability is minus its id over 100."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, batch: Batch) -> TokenScores:
        return TokenScores(-batch.input_ids_BL / 100, batch.answers_BL & False)


@pytest.mark.parametrize("num_processes", [1, 2, 3])
def test_the_loss_of_each_row_whatever_the_batches(num_processes: int) -> None:
    lengths = [4, 9, 2, 6, 5]
    examples = examples_of(lengths)
    sums = torch.zeros(len(lengths), dtype=torch.float64)
    for index in range(num_processes):
        batches = evaluation_batches(
            examples, rows_per_batch=2, pad_token_id=0, process_index=index, num_processes=num_processes
        )
        found = row_losses(Scripted(), batches, len(lengths))
        sums += torch.tensor(found, dtype=torch.float64).nan_to_num()
    expected = []
    for number, length in enumerate(lengths):
        learned = range(max(1, length // 2), length)
        expected.append(sum(100 * number + place for place in learned) / len(learned) / 100)
    torch.testing.assert_close(sums, torch.tensor(expected, dtype=torch.float64))
    if num_processes == 1:
        counts = torch.tensor([length - max(1, length // 2) for length in lengths], dtype=torch.float64)
        assert loss_metrics(Scripted(), batches)["loss"] == pytest.approx(float(sums @ counts / counts.sum()))
