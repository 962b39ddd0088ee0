"""Each preference loss by itself: fixed points by hand, and its settings.

Shapes: P pairs, N completions.
"""

import math
from typing import Any

import pytest
import torch
from preference_stand_in import DIVERGENCES, NAMES, P, loss_of, pairs_of, singles_of, where_nothing_moved
from pydantic import TypeAdapter, ValidationError

from ftk.objectives import Task
from ftk.objectives.preference.compared import Pairs
from ftk.objectives.preference.divergences import alpha_score, forward_kl_score
from ftk.objectives.preference.kto import kto_loss
from ftk.objectives.preference.orpo import log_odds
from ftk.objectives.preference.task import Preference


@pytest.mark.parametrize("label_smoothing", [0.0, 0.3])
@pytest.mark.parametrize("divergence", ["reverse_kl", *DIVERGENCES])
def test_dpo_is_log_two_while_policy_equals_reference(divergence: Any, label_smoothing: float) -> None:
    loss = loss_of({"name": "dpo", "divergence": divergence, "label_smoothing": label_smoothing})
    losses_P = loss.losses(where_nothing_moved(pairs_of()))
    torch.testing.assert_close(losses_P, torch.full((P,), math.log(2)), rtol=0, atol=1e-6)


AT_START = {
    "dpo": math.log(2),
    "dpo_norm": math.log(2),
    "robust": math.log(2),
    "ipo": 25.0,  # (0 - 1 / (2 * 0.1)) squared
    "hinge": 1.0,
    "apo_zero": 1.0,
    "apo_down": 1.0,
}


@pytest.mark.parametrize("name", AT_START)
def test_where_nothing_moved(name: str) -> None:
    losses_P = loss_of(name).losses(where_nothing_moved(pairs_of()))
    torch.testing.assert_close(losses_P, torch.full((P,), AT_START[name]), rtol=1e-6, atol=0)


def test_kto_where_nothing_moved_is_half_of_each_weight() -> None:
    loss = loss_of({"name": "kto", "desirable_weight": 3.0, "undesirable_weight": 0.5})
    singles = singles_of(baseline=0.0)
    losses_N = loss.losses(singles._replace(logps_N=singles.ref_logps_N))
    torch.testing.assert_close(losses_N, torch.where(singles.desirable_N, 1.5, 0.25))


def test_kto_takes_a_negative_baseline_for_0_and_without_gradient() -> None:
    singles = singles_of()
    arguments = (singles.logps_N, singles.ref_logps_N, singles.desirable_N)
    torch.testing.assert_close(
        kto_loss(*arguments, torch.tensor(-5.0), beta=0.1), kto_loss(*arguments, torch.tensor(0.0), beta=0.1)
    )
    baseline = torch.tensor(2.0, requires_grad=True)
    assert not kto_loss(*arguments, baseline, beta=0.1).requires_grad


def test_losses_without_a_reference_by_hand() -> None:
    """Means of a token: -1 for the chosen, -2 for the rejected one."""
    zero = torch.zeros(1)
    pairs = Pairs(torch.tensor([-3.0]), torch.tensor([-4.0]), zero, zero, torch.tensor([3.0]), torch.tensor([2.0]))
    assert loss_of({"name": "simpo", "beta": 2, "gamma": 2}).losses(pairs).item() == pytest.approx(math.log(2))
    odds = [math.exp(mean) / (1 - math.exp(mean)) for mean in (-1, -2)]
    expected = 0.1 * math.log(1 + odds[1] / odds[0])
    assert loss_of("orpo").losses(pairs).item() == pytest.approx(expected, rel=1e-6)
    assert loss_of({"name": "cpo", "beta": 1}).losses(pairs).item() == pytest.approx(math.log(1 + math.exp(-1)))
    slic = loss_of({"name": "hinge", "beta": 0.25, "reference": False})
    assert slic.losses(pairs).item() == pytest.approx(1 - 0.25)
    assert not slic.needs_reference


def test_ipo_has_its_minimum_at_its_goal() -> None:
    """Margin 1 / (2 beta): 5 nats in all for sums, 5 nats a token for means."""
    ones, lengths_P = torch.ones(1), torch.tensor([4.0])
    for length_normalized, rise in ((True, 5.0 * 4), (False, 5.0)):
        pairs = Pairs(-9 * ones + rise, -9 * ones, -9 * ones, -9 * ones, lengths_P, lengths_P)
        assert loss_of({"name": "ipo", "length_normalized": length_normalized}).losses(pairs).item() == 0


def test_robust_is_unbiased_under_flips() -> None:
    """Over random flips of the labels its mean is DPO's loss on the right ones."""
    pairs = pairs_of(dtype=torch.float64)
    flipped = Pairs(*(pairs[at] for at in (1, 0, 3, 2, 5, 4)))
    robust = loss_of({"name": "robust", "flip_probability": 0.2})
    mean_P = 0.8 * robust.losses(pairs) + 0.2 * robust.losses(flipped)
    torch.testing.assert_close(mean_P, loss_of("dpo").losses(pairs), rtol=1e-12, atol=1e-12)


def test_conservative_dpo_is_its_expectation_under_flips() -> None:
    pairs = pairs_of(dtype=torch.float64)
    flipped = Pairs(*(pairs[at] for at in (1, 0, 3, 2, 5, 4)))
    expected_P = 0.9 * loss_of("dpo").losses(pairs) + 0.1 * loss_of("dpo").losses(flipped)
    smoothed_P = loss_of({"name": "dpo", "label_smoothing": 0.1}).losses(pairs)
    torch.testing.assert_close(smoothed_P, expected_P, rtol=1e-12, atol=1e-12)


def test_the_alpha_divergence_leads_from_forward_to_reverse_kl() -> None:
    log_ratios_P = torch.linspace(-3, 3, 13, dtype=torch.float64)
    torch.testing.assert_close(alpha_score(log_ratios_P, alpha=0.0), forward_kl_score(log_ratios_P))
    torch.testing.assert_close(alpha_score(log_ratios_P, alpha=1 - 1e-5), log_ratios_P, rtol=1e-4, atol=1e-4)
    assert alpha_score(log_ratios_P, alpha=1.0) is log_ratios_P


@pytest.mark.parametrize("divergence", ["reverse_kl", *DIVERGENCES])
def test_completions_that_became_a_thousand_nats_rarer_have_a_finite_loss(divergence: Any) -> None:
    far = torch.tensor([-1000.0], requires_grad=True)
    zero = torch.zeros(1)
    loss = loss_of({"name": "dpo", "divergence": divergence})
    value = loss.losses(Pairs(far, far, zero, zero, zero + 9, zero + 9)).sum()
    (gradient,) = torch.autograd.grad(value, far)
    assert torch.isfinite(value)
    assert torch.isfinite(gradient).all()


def test_odds_of_a_sure_completion_are_finite() -> None:
    mean_logps_P = torch.tensor([0.0, -1e-9, -1e-3, -50.0], requires_grad=True)
    odds_P = log_odds(mean_logps_P)
    (gradient,) = torch.autograd.grad(odds_P.sum(), mean_logps_P)
    assert torch.isfinite(odds_P).all()
    assert torch.isfinite(gradient).all()
    assert odds_P[3].item() == pytest.approx(-50)


def test_a_plain_word_is_dpo() -> None:
    task = TypeAdapter(Task).validate_python("preference")
    assert isinstance(task, Preference)
    assert (task.loss.name, task.loss.beta, task.rows, task.needs_reference) == ("dpo", 0.1, "pairs", True)
    assert TypeAdapter(Task).validate_python({"name": "preference", "loss": {"beta": 0.3}}).loss.beta == 0.3


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("beta", [0, -0.1, math.inf, math.nan])
def test_a_beta_of_0_or_below_is_refused(name: str, beta: float) -> None:
    with pytest.raises(ValidationError, match="beta"):
        loss_of({"name": name, "beta": beta})


@pytest.mark.parametrize(
    "settings",
    [
        {"label_smoothing": 0.5},
        {"label_smoothing": -0.1},
        {"name": "robust", "flip_probability": 0.5},
        {"name": "simpo", "gamma": -1},
        {"name": "kto", "desirable_weight": 0},
        {"divergence": {"name": "alpha", "alpha": 1.5}},
        {"divergence": "chi"},
        {"name": "sigmoid"},
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        loss_of(settings)


def test_what_a_task_needs_follows_from_its_loss() -> None:
    needed = {name: Preference(loss=loss_of(name)) for name in NAMES}
    assert {name for name, task in needed.items() if not task.needs_reference} == {"simpo", "orpo", "cpo"}
    assert {name for name, task in needed.items() if task.rows == "unpaired"} == {"kto"}
    weights = {name: task.objective().sft_weight for name, task in needed.items()}
    assert {name for name, weight in weights.items() if weight} == {"orpo", "cpo"}
    assert Preference(loss=loss_of("orpo"), sft_weight=0.0).objective().sft_weight == 0
    assert Preference(sft_weight=0.2).objective(router_loss_weight=0.5).router_loss_weight == 0.5
    assert Preference(router_loss_weight=0).objective(router_loss_weight=0.5).router_loss_weight == 0
