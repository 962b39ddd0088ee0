"""Losses on held-out rows and on general text."""

import math
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from data_stand_in import byte_tokenizer, examples_of
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from ftk.core.types import Batch, Terms, TokenScores
from ftk.data.batches import evaluation_batches
from ftk.evaluation.retention import forgetting, general_text, general_text_batches
from ftk.evaluation.score import loss_metrics, objective_metrics
from ftk.models.scoring import ScoringModel
from ftk.objectives.sft import SftObjective
from ftk.runs.figures import Figures

LENGTHS = [4, 9, 17, 5, 30, 3, 12]


class Stub(nn.Module):
    """Scores that are known: token t has log-probability -(t mod 7) / 7, and is right where t is even."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.5)
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, batch: Batch) -> TokenScores:
        logps_BL = -(batch.input_ids_BL % 7) / 7 * self.dropout(torch.ones(1))
        return TokenScores(logps_BL=logps_BL, correct_BL=batch.input_ids_BL % 2 == 0)


@dataclass
class Group:
    """Processes that run one after another: the last one reduces over what the others brought."""

    num_processes: int
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    brought: list[Tensor] = field(default_factory=list)

    def reduce(self, tensor: Tensor, reduction: str) -> Tensor:
        assert reduction == "sum"
        self.brought.append(tensor)
        return torch.stack(self.brought).sum(0)


def by_hand(lengths: list[int]) -> dict[str, float]:
    """Over the tokens of the second halves, in exact arithmetic."""
    tokens = [100 * row + place for row, length in enumerate(lengths) for place in range(max(1, length // 2), length)]
    loss = sum(token % 7 for token in tokens) / 7 / len(tokens)
    correct = sum(token % 2 == 0 for token in tokens) / len(tokens)
    return {"loss": loss, "perplexity": math.exp(loss), "token_accuracy": correct}


@pytest.mark.parametrize("rows_per_batch", [1, 2, 3, 7])
def test_evaluation_loss_is_that_of_all_rows_in_one_pass(rows_per_batch):
    batches = evaluation_batches(examples_of(LENGTHS), rows_per_batch=rows_per_batch, pad_token_id=0)
    assert loss_metrics(Stub(), batches) == pytest.approx(by_hand(LENGTHS), rel=1e-6)


@pytest.mark.parametrize("num_processes", [1, 2, 3])
def test_sampler_over_processes_counts_each_row_once(num_processes):
    group: Any = Group(num_processes)
    for process_index in range(num_processes):
        batches = evaluation_batches(
            examples_of(LENGTHS),
            rows_per_batch=2,
            pad_token_id=0,
            process_index=process_index,
            num_processes=num_processes,
        )
        found = loss_metrics(Stub(), batches, group)
    assert found == pytest.approx(by_hand(LENGTHS), rel=1e-6)


def test_prompt_tokens_and_silent_answers_do_not_count():
    batch = evaluation_batches(examples_of([8]), rows_per_batch=1, pad_token_id=0)[0]
    # Tokens 4 to 7 are the answer; 7 is one that is not learned.
    batch.weights_BL[0, 7] = 0.0
    found = loss_metrics(Stub(), [batch])
    assert found["loss"] == pytest.approx((4 + 5 + 6) / 7 / 3)
    assert found["token_accuracy"] == pytest.approx(2 / 3)


def test_without_an_answer_token_there_is_no_loss():
    assert all(math.isnan(value) for value in loss_metrics(Stub(), []).values())


def test_evaluation_in_training_mode():
    model = Stub().train()
    model.dropout.train()
    batches = evaluation_batches(examples_of(LENGTHS), rows_per_batch=2, pad_token_id=0)
    assert loss_metrics(model, batches) == loss_metrics(model, batches), "dropout was active"
    assert model.training
    assert model.dropout.training, "dropout is active in the next step"
    model.dropout.eval()
    loss_metrics(model, batches)
    assert model.training
    assert not model.dropout.training


class Centred(SftObjective):
    """Squared distance from the mean over all rows: it must be known before any row is judged."""

    def statistics_batches(self, batch: Batch) -> tuple[Batch, ...]:
        return (batch,)

    def statistics(self, scores: TokenScores, batch: Batch) -> dict[str, Tensor]:
        counts_BL = batch.weights_BL > 0
        return {"sum": torch.where(counts_BL, scores.logps_BL, 0.0).sum(), "count": counts_BL.sum()}

    def weights(self, batch: Batch) -> dict[str, float]:
        return {"distance": float((batch.weights_BL > 0).sum()), "unused": 0.0}

    def terms(self, scores: TokenScores, batch: Batch, statistics: Any) -> Terms:
        mean = statistics["sum"] / statistics["count"]
        distance = ((scores.logps_BL - mean) ** 2 * (batch.weights_BL > 0)).sum()
        return Terms({"distance": distance, "unused": distance}, {"num_rows": torch.tensor(batch.num_examples)})

    def figures(self, observed: Any) -> dict[str, float]:
        return {"rows": observed["num_rows"]}


@pytest.mark.parametrize("rows_per_batch", [1, 3, 7])
def test_an_objective_is_measured_over_all_rows_as_one_step(rows_per_batch):
    batches = evaluation_batches(examples_of(LENGTHS), rows_per_batch=rows_per_batch, pad_token_id=0)
    found = objective_metrics(Stub(), Centred(), batches)
    values = [100 * row + place for row, length in enumerate(LENGTHS) for place in range(1, length)]
    logps = torch.tensor([-(value % 7) / 7 for value in values], dtype=torch.float64)
    assert found == {"loss": pytest.approx(float(logps.var(correction=0)), rel=1e-6), "rows": len(LENGTHS)}


@pytest.mark.parametrize("num_processes", [1, 2, 3])
def test_an_objective_is_measured_alike_on_any_number_of_processes(num_processes):
    group: Any = Group(num_processes)
    for process_index in range(num_processes):
        batches = evaluation_batches(
            examples_of(LENGTHS),
            rows_per_batch=2,
            pad_token_id=0,
            process_index=process_index,
            num_processes=num_processes,
        )
        found = objective_metrics(Stub(), SftObjective(), batches, group)
    examples = examples_of(LENGTHS)
    nll = sum(
        float(weight) * (int(token) % 7) / 7 for token, weight in zip(examples.token_ids, examples.weights, strict=True)
    )
    assert found["loss"] == pytest.approx(nll / float(examples.weights.sum()), rel=1e-6)
    assert found["token_accuracy"] == pytest.approx(by_hand(LENGTHS)["token_accuracy"])


def test_an_objective_leaves_the_mode_and_no_gradients():
    model = Stub().train()
    batches = evaluation_batches(examples_of(LENGTHS), rows_per_batch=2, pad_token_id=0)
    assert objective_metrics(model, Centred(), batches) == objective_metrics(model, Centred(), batches)
    assert model.training
    assert model.weight.grad is None


def test_an_objective_without_rows_or_weight_has_no_loss():
    assert math.isnan(objective_metrics(Stub(), SftObjective(), [])["loss"])
    batch = evaluation_batches(examples_of([4]), rows_per_batch=1, pad_token_id=0)[0]
    batch.weights_BL[:] = 0
    assert math.isnan(objective_metrics(Stub(), SftObjective(), [batch])["loss"])


def test_a_loss_beyond_what_a_float_holds():
    model = Stub()
    model.forward = lambda batch: TokenScores(batch.weights_BL * -1000, batch.answers_BL)
    batches = evaluation_batches(examples_of([4]), rows_per_batch=1, pad_token_id=0)
    assert loss_metrics(model, batches) == {"loss": 1000.0, "perplexity": math.inf, "token_accuracy": 1.0}


def test_general_text_counts_every_token_but_the_first_of_a_document():
    tokenizer = byte_tokenizer()
    num_bytes = len(general_text().encode())
    assert 6_000 < num_bytes < 10_000
    batches = general_text_batches(tokenizer, max_length=256, rows_per_batch=4)
    assert sum(batch.num_tokens for batch in batches) == num_bytes
    num_documents = math.ceil(num_bytes / 256)
    assert sum(float(batch.weights_BL.sum()) for batch in batches) == num_bytes - num_documents
    rows = [row for batch in batches for row in zip(batch.input_ids_BL, batch.document_ids_BL, strict=True)]
    text = b"".join(tokenizer.decode(ids[real > 0]).encode() for ids, real in rows)
    assert text.decode() == general_text()


def test_general_loss_is_the_models_own():
    torch.manual_seed(0)
    tokenizer = byte_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        initializer_range=0.3,
    )
    model = LlamaForCausalLM(config).eval()
    found = loss_metrics(ScoringModel(model), general_text_batches(tokenizer, max_length=512))
    input_ids = torch.tensor(tokenizer(general_text())["input_ids"])
    total, num = 0.0, 0
    with torch.no_grad():
        for document in input_ids.split(512):
            total += float(model(document[None], labels=document[None]).loss.double()) * (len(document) - 1)
            num += len(document) - 1
    assert found["loss"] == pytest.approx(total / num, rel=1e-5)


def test_figures_that_are_no_numbers_are_kept_as_strict_json(tmp_path):
    path = tmp_path / "before.json"
    Figures({"loss": 1.5, "json_fields.city": math.nan, "perplexity": math.inf}).save(path)
    assert "NaN" not in path.read_text()
    assert Figures.load(path) == Figures({"loss": 1.5})


def test_forgetting_is_a_rise_beyond_the_limit():
    assert forgetting(2.0, 2.1, max_forgetting=0.1 + 1e-9) is None
    assert forgetting(2.0, 1.0, max_forgetting=0.0) is None
    sentence = forgetting(2.0, 2.35, max_forgetting=0.1)
    assert sentence is not None
    assert "from 2.000 to 2.350" in sentence
