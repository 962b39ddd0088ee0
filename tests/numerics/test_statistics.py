"""Statistics of a whole optimizer step that look at other batches than the ones that are learned from."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
import torch
from model_stand_in import Baselined, StandIn
from rows_stand_in import rows, split
from torch import Tensor, nn

from ftk.core.types import Batch, Terms, TokenScores
from ftk.objectives.sft import SftObjective
from ftk.train.group import join_group
from ftk.train.step import Step

DATA = rows(8, seed=3)


def step_of(model: nn.Module, objective: SftObjective | Baselined) -> Step:
    return Step(
        model=model,
        objective=objective,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.0),
        accelerator=join_group("fp32"),
        max_grad_norm=None,
    )


def gradients_of(model: nn.Module, batches: Sequence[Batch], objective: SftObjective) -> dict[str, Tensor]:
    """Gradients as the optimizer sees them."""
    seen: dict[str, Tensor] = {}
    step = step_of(model, objective)
    step._optimizer.register_step_pre_hook(
        lambda *_: seen.update({name: one.grad.clone() for name, one in model.named_parameters()})
    )
    step(batches, learning_rate=0.0)
    return seen


class Aside(SftObjective):
    """Likelihood minus what the likelihood of completions aside is on average, over the whole step."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Batch] = []

    def statistics_batches(self, batch: Batch) -> Sequence[Batch]:
        assert batch.aside is not None
        return (batch.aside,)

    def statistics(self, scores: TokenScores, batch: Batch) -> dict[str, Tensor]:
        assert not torch.is_grad_enabled()
        self.seen.append(batch)
        return {"sum": scores.logps_BL.sum(), "count": (batch.weights_BL > 0).sum().to(scores.logps_BL)}

    def terms(self, scores: TokenScores, batch: Batch, statistics: Mapping[str, Tensor]) -> Terms:
        baseline = statistics["sum"] / statistics["count"]
        return Terms({"nll": ((scores.logps_BL - baseline) ** 2 * batch.weights_BL).sum()}, {})

    def figures(self, observed: Mapping[str, float]) -> dict[str, float]:
        return {}


def with_asides(size: int) -> list[Batch]:
    asides = split(rows(8, seed=4), size)
    return [replace(batch, aside=aside) for batch, aside in zip(split(DATA, size), asides, strict=True)]


def test_a_baseline_from_what_lies_aside_is_of_the_whole_step():
    torch.manual_seed(0)
    model = StandIn().double()
    batch = with_asides(8)[0]
    assert batch.aside is not None
    with torch.no_grad():
        baseline = model(batch.aside).logps_BL.sum() / (batch.aside.weights_BL > 0).sum()
    loss = ((model(batch).logps_BL - baseline) ** 2 * batch.weights_BL.double()).sum()
    wanted = torch.autograd.grad(loss / batch.weights_BL.double().sum(), list(model.parameters()))
    # In one micro-batch, too, the statistics are of what lies aside and not of the batch itself.
    for size in (8, 3, 1):
        objective = Aside()
        found = gradients_of(model, with_asides(size), objective)
        assert len(objective.seen) == math.ceil(8 / size)
        for gradient, expected in zip(found.values(), wanted, strict=True):
            torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-12)


class Both(Aside):
    """Statistics of the batch and of what lies aside, told apart by their names."""

    def statistics_batches(self, batch: Batch) -> Sequence[Batch]:
        assert batch.aside is not None
        return (batch.aside, batch)

    def statistics(self, scores: TokenScores, batch: Batch) -> dict[str, Tensor]:
        prefix = "aside" if batch.aside is None else "own"
        return {f"{prefix}_{name}": value for name, value in super().statistics(scores, batch).items()}

    def terms(self, scores: TokenScores, batch: Batch, statistics: Mapping[str, Tensor]) -> Terms:
        self.statistics_seen = dict(statistics)
        difference = statistics["own_sum"] - statistics["aside_sum"]
        return Terms({"nll": ((scores.logps_BL - difference) ** 2 * batch.weights_BL).sum()}, {})


def test_statistics_of_the_batch_see_its_dropout_beside_those_of_what_lies_aside():
    torch.manual_seed(0)
    model = StandIn(dropout=0.5).double()
    batches = with_asides(3)
    objective = Both()
    torch.manual_seed(1)
    own = sum(float(model(batch).logps_BL.detach().sum()) for batch in batches)
    torch.manual_seed(1)
    gradients_of(model, batches, objective)
    assert float(objective.statistics_seen["own_sum"]) == pytest.approx(own, rel=1e-12)
    aside = sum(int((batch.aside.weights_BL > 0).sum()) for batch in batches if batch.aside is not None)
    assert int(objective.statistics_seen["aside_count"]) == aside


@pytest.mark.parametrize("objective", [Aside(), Both(), Baselined(), SftObjective()])
def test_a_rehearsal_runs_what_a_step_of_one_batch_runs(objective):
    model = StandIn()
    forwards: list[bool] = []
    model.register_forward_hook(lambda *_: forwards.append(torch.is_grad_enabled()))
    step = step_of(model, objective)
    (batch,) = with_asides(8)
    step.rehearse(batch)
    rehearsed, forwards[:] = list(forwards), []
    assert all(one.grad is not None for one in model.parameters())
    step([batch], learning_rate=0.0)
    assert rehearsed == forwards
    assert len(forwards) == {Aside: 2, Both: 3}.get(type(objective), 1)
