"""What all preference losses share: sums, weights, the mix with likelihood, the baseline, and what is logged."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from trees_stand_in import tree

from ftk.core.config import members
from ftk.core.types import Batch, Example, RouterLoad, TokenScores
from ftk.data.collate import collate, idle_batch
from ftk.objectives.preference import PreferenceLoss
from ftk.objectives.preference.objective import PreferenceObjective
from ftk.objectives.preference.task import Preference
from ftk.objectives.sft import SftObjective

NAMES = sorted(members(PreferenceLoss.__origin__))


def objective_of(loss: Any, **settings: Any) -> PreferenceObjective:
    return Preference.model_validate({"loss": loss, **settings}).objective()


def example(trunk: int, lengths: Sequence[int], columns: Mapping[str, Any], *, aside: bool = False) -> Example:
    completions = [range(1, 1 + length) for length in lengths]
    return tree(range(1, 1 + trunk), *completions, branches=(1, -1) if aside else None, **columns)


PAIRS = [
    example(2, [2, 3], {"reference_logps": [-3.0, -2.0]}),
    example(3, [1, 1], {"reference_logps": [-1.0, -1.0]}),
    example(2, [4, 2], {"reference_logps": [-6.0, -2.0]}),
]
SINGLES = [
    example(2, [2, 3], {"reference_logps": [-2.0, -6.0], "desirable": 1}, aside=True),
    example(3, [1, 1], {"reference_logps": [-2.0, -4.0], "desirable": 0}, aside=True),
    example(2, [4, 2], {"reference_logps": [-3.0, -2.0], "desirable": 1}, aside=True),
]


def rows_of(name: str) -> list[Example]:
    return SINGLES if name == "kto" else PAIRS


def batch_of(*examples: Example) -> Batch:
    return collate([[one] for one in examples], pad_token_id=0)


def scores_of(batch: Batch, token_logp: float | Tensor = -1.0) -> TokenScores:
    """Every learned token has this log-probability."""
    return TokenScores(token_logp * (batch.weights_BL > 0), batch.answers_BL)


def statistics_of(objective: PreferenceObjective, *batches: Batch) -> dict[str, Tensor]:
    total: dict[str, Tensor] = {}
    for batch in batches:
        for seen in objective.statistics_batches(batch):
            for name, value in objective.statistics(scores_of(seen), seen).items():
                total[name] = total.get(name, torch.tensor(0.0)) + value
    return total


def figures_of(objective: PreferenceObjective, *batches: Batch) -> dict[str, float]:
    statistics, observed = statistics_of(objective, *batches), dict[str, float]()
    for batch in batches:
        for name, value in objective.terms(scores_of(batch), batch, statistics).observed.items():
            observed[name] = observed.get(name, 0.0) + float(value)
    return objective.figures(observed)


def test_figures_by_hand() -> None:
    """Tokens of -1 nat give sums of -2 and -3, -1 and -1, -4 and -2; against the reference 1, -1, 0, 0, 2 and 0."""
    for batches in ([batch_of(*PAIRS)], [batch_of(one) for one in PAIRS]):
        assert figures_of(objective_of({"beta": 0.5}), *batches) == pytest.approx(
            {
                "rewards_chosen": 0.5 * (1 + 0 + 2) / 3,
                "rewards_rejected": 0.5 * (-1 + 0 + 0) / 3,
                "rewards_margin": 0.5 * 4 / 3,
                # Two are right, and the one of equal rewards is half right.
                "preference_accuracy": 2.5 / 3,
                "logps_chosen": -7 / 3,
                "logps_rejected": -6 / 3,
                "kl": (3 - 1) / 6,
            }
        )


def test_figures_without_a_reference_tell_no_divergence() -> None:
    assert figures_of(objective_of({"name": "simpo", "beta": 3}), batch_of(*PAIRS)) == pytest.approx(
        {
            "rewards_chosen": -3,
            "rewards_rejected": -3,
            "rewards_margin": 0,
            "preference_accuracy": 0.5,
            "logps_chosen": -7 / 3,
            "logps_rejected": -2,
        }
    )


def test_figures_of_completions_by_themselves() -> None:
    """Aside: sums of -3, -1 and -2, against the reference 3, 3 and 0: a baseline of 2."""
    figures = figures_of(objective_of({"name": "kto", "beta": 0.5}), *(batch_of(one) for one in SINGLES))
    assert figures == pytest.approx(
        {
            "rewards_chosen": 0.5 * (0 - 1) / 2,
            "rewards_rejected": 0.5 * 1,
            "rewards_margin": -0.75,
            "logps_chosen": -3,
            "logps_rejected": -1,
            "kl": 2,
        }
    )
    # As the loss takes part of it, never below 0.
    grown = [replace(one, columns={**one.columns, "reference_logps": np.zeros(2, np.float32)}) for one in SINGLES]
    assert figures_of(objective_of("kto"), batch_of(*grown))["kl"] == 0
    desirable_alone = figures_of(objective_of("kto"), batch_of(SINGLES[0]))
    assert desirable_alone.keys() == {"rewards_chosen", "logps_chosen", "kl"}
    assert objective_of("kto").figures({}) == {}


def test_the_baseline_is_that_of_the_whole_step() -> None:
    objective = objective_of({"name": "kto", "beta": 1.0})
    parts = [batch_of(*SINGLES[:1]), batch_of(*SINGLES[1:])]
    statistics = statistics_of(objective, *parts)
    assert statistics["log_ratios_aside"] / statistics["num_aside"] == 2
    total = sum(float(objective.terms(scores_of(one), one, statistics).sums["preference"]) for one in parts)
    # 1 - sigmoid(0 - 2), 1 - sigmoid(2 - 1) for the unwanted one, 1 - sigmoid(-1 - 2)
    assert total == pytest.approx(sum(1 / (1 + math.exp(margin)) for margin in (-2, 1, -3)), rel=1e-6)


def test_completions_by_themselves_without_others_aside_are_a_defect() -> None:
    with pytest.raises(ValueError, match="aside"):
        objective_of("kto").statistics_batches(replace(batch_of(*SINGLES), aside=None))


def test_weights_are_examples_and_tokens_of_chosen_completions() -> None:
    assert objective_of("dpo").weights(batch_of(*PAIRS)) == {"preference": 3}
    assert objective_of("orpo").weights(batch_of(*PAIRS)) == {"preference": 3, "sft": 2 + 1 + 4}
    assert objective_of("kto", sft_weight=0.5).weights(batch_of(*SINGLES)) == {"preference": 3, "sft": 2 + 4}
    routed = objective_of("dpo", router_loss_weight=0.1).weights(batch_of(*PAIRS))
    assert routed == {"preference": 3, "router": 7 + 5 + 8}


def test_the_baseline_carries_no_gradient_and_is_0_where_nothing_lies_aside() -> None:
    objective, batch = objective_of("kto"), batch_of(*SINGLES)
    assert batch.aside is not None
    scores = scores_of(batch.aside, torch.tensor(-1.0, requires_grad=True))
    assert not any(one.requires_grad for one in objective.statistics(scores, batch.aside).values())
    nothing = {"log_ratios_aside": torch.tensor(0.0), "num_aside": torch.tensor(0.0)}
    terms = objective.terms(scores_of(batch), batch, nothing)
    assert terms.sums["preference"].isfinite()
    assert terms.observed["kl_sum"] == 0


def test_the_balance_of_experts_joins_the_loss_by_its_weight() -> None:
    objective, batch = objective_of("dpo", router_loss_weight=0.1), batch_of(*PAIRS)
    load = RouterLoad(torch.tensor([30.0, 10.0]), torch.tensor([24.0, 16.0]), torch.tensor(40.0))
    scores = scores_of(batch)._replace(router=load)
    (seen,) = objective.statistics_batches(batch)
    assert seen is batch
    found = objective.terms(scores, batch, objective.statistics(scores, batch)).sums["router"]
    # Experts times the sum over experts of share of choices times mean probability, for each of 20 tokens.
    assert float(found) == pytest.approx(0.1 * 2 * (0.75 * 0.6 + 0.25 * 0.4) * 20)


@pytest.mark.parametrize("name", ["dpo", "kto"])
def test_the_mix_is_supervised_finetuning_on_chosen_completions(name: str) -> None:
    objective = objective_of(name, sft_weight=0.25)
    batch = batch_of(*rows_of(name))
    generator = torch.Generator().manual_seed(0)
    scores = scores_of(batch, -torch.rand(batch.weights_BL.shape, generator=generator))
    found = objective.terms(scores, batch, statistics_of(objective, batch)).sums["sft"]
    chosen_BL = batch.answers_BL & (batch.branches_BL == 1 if batch.branches_BL is not None else True)
    if name == "kto":
        chosen_BL = chosen_BL & (batch.columns["desirable"] > 0)[:, None]
    answers = replace(batch, weights_BL=batch.weights_BL * chosen_BL)
    sft = SftObjective()
    expected = 0.25 * sft.terms(scores, answers, {}).sums["nll"] / sft.weights(answers)["nll"]
    torch.testing.assert_close(found / objective.weights(batch)["sft"], expected)


@pytest.mark.parametrize("name", NAMES)
def test_a_row_that_keeps_processes_in_step_weighs_and_tells_nothing(name: str) -> None:
    """Its terms are 0, its gradients are there and 0, and it has the names of any other batch."""
    objective = objective_of(name, sft_weight=0.5)
    idle, real = idle_batch(rows_of(name)[0]), batch_of(*rows_of(name))
    assert not any(objective.weights(idle).values())
    assert len(objective.statistics_batches(idle)) == len(objective.statistics_batches(real))
    statistics = statistics_of(objective, real)
    touched = torch.zeros((), requires_grad=True)
    logps_BL = torch.zeros(idle.weights_BL.shape) + touched
    terms = objective.terms(TokenScores(logps_BL, idle.answers_BL), idle, statistics)
    expected = objective.terms(scores_of(real), real, statistics)
    assert (terms.sums.keys(), terms.observed.keys()) == (expected.sums.keys(), expected.observed.keys())
    assert all(value == 0 for value in (*terms.sums.values(), *terms.observed.values()))
    assert all(value == 0 for value in statistics_of(objective, idle).values())
    (gradient,) = torch.autograd.grad(torch.stack(list(terms.sums.values())).sum(), touched)
    assert gradient == 0


@pytest.mark.parametrize("name", NAMES)
def test_terms_carry_gradients_and_observed_sums_none(name: str) -> None:
    objective = objective_of(name)
    batch = batch_of(*rows_of(name))
    logps_BL = (-1.5 * batch.weights_BL).requires_grad_()
    terms = objective.terms(TokenScores(logps_BL, batch.answers_BL), batch, statistics_of(objective, batch))
    (gradient_BL,) = torch.autograd.grad(terms.sums["preference"], logps_BL)
    assert (gradient_BL.abs().sum(1) > 0).all()
    assert not gradient_BL[batch.weights_BL == 0].any()
    assert not any(value.requires_grad for value in terms.observed.values())
