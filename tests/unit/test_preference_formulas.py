"""Each preference loss against its formula in double precision, and its gradients against finite differences.

Shapes: P pairs, N completions.
"""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from preference_stand_in import DIVERGENCES, PAIRED, loss_of, pairs_of, singles_of, where_nothing_moved

from ftk.objectives.preference.compared import Pairs
from ftk.objectives.preference.dpo import dpo_loss


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def smooth(c: float, r: float, rc: float, rr: float, e: float = 0.2, beta: float = 0.1) -> float:
    margin = beta * ((c - rc) - (r - rr))
    return -(1 - e) * math.log(sigmoid(margin)) - e * math.log(1 - sigmoid(margin))


def noisy(margin: float, e: float = 0.2) -> float:
    return (-(1 - e) * math.log(sigmoid(margin)) + e * math.log(sigmoid(-margin))) / (1 - 2 * e)


FORMULAS: dict[str, tuple[Any, Callable[..., float]]] = {
    "dpo": ("dpo", lambda c, r, rc, rr, n, m: -math.log(sigmoid(0.1 * ((c - r) - (rc - rr))))),
    "conservative": ({"label_smoothing": 0.2}, lambda c, r, rc, rr, n, m: smooth(c, r, rc, rr)),
    "forward_kl": (
        {"divergence": "forward_kl"},
        lambda c, r, rc, rr, n, m: math.log(1 + math.exp(0.1 * (math.exp(rc - c) - math.exp(rr - r)))),
    ),
    "js": (
        {"divergence": "js", "beta": 1},
        lambda c, r, rc, rr, n, m: -math.log(sigmoid(math.log(sigmoid(c - rc)) - math.log(sigmoid(r - rr)))),
    ),
    "alpha": (
        {"divergence": {"name": "alpha", "alpha": 0.25}},
        lambda c, r, rc, rr, n, m: (
            -math.log(sigmoid(0.1 * (math.exp(-0.75 * (c - rc)) - math.exp(-0.75 * (r - rr))) / -0.75))
        ),
    ),
    "dpo_norm": ("dpo_norm", lambda c, r, rc, rr, n, m: -math.log(sigmoid(5 * ((c - rc) / n - (r - rr) / m)))),
    "robust": (
        {"name": "robust", "flip_probability": 0.2},
        lambda c, r, rc, rr, n, m: noisy(0.1 * ((c - rc) - (r - rr))),
    ),
    "robust, js": (
        {"name": "robust", "flip_probability": 0.2, "divergence": "js", "beta": 1},
        lambda c, r, rc, rr, n, m: noisy(math.log(sigmoid(c - rc)) - math.log(sigmoid(r - rr))),
    ),
    "ipo": ("ipo", lambda c, r, rc, rr, n, m: ((c - rc) / n - (r - rr) / m - 5) ** 2),
    "ipo, sums": (
        {"name": "ipo", "length_normalized": False, "beta": 0.25},
        lambda c, r, rc, rr, n, m: ((c - rc) - (r - rr) - 2) ** 2,
    ),
    "hinge": ({"name": "hinge", "beta": 0.5}, lambda c, r, rc, rr, n, m: max(0, 1 - 0.5 * ((c - rc) - (r - rr)))),
    "simpo": ("simpo", lambda c, r, rc, rr, n, m: -math.log(sigmoid(2 * (c / n - r / m) - 1))),
    "orpo": (
        "orpo",
        lambda c, r, rc, rr, n, m: (
            -0.1 * math.log(sigmoid(c / n - math.log(1 - math.exp(c / n)) - r / m + math.log(1 - math.exp(r / m))))
        ),
    ),
    "cpo": ("cpo", lambda c, r, rc, rr, n, m: -math.log(sigmoid(0.1 * (c - r)))),
    "apo_zero": ("apo_zero", lambda c, r, rc, rr, n, m: 1 - sigmoid(0.1 * (c - rc)) + sigmoid(0.1 * (r - rr))),
    "apo_down": (
        "apo_down",
        lambda c, r, rc, rr, n, m: sigmoid(0.1 * (c - rc)) + 1 - sigmoid(0.1 * ((c - rc) - (r - rr))),
    ),
}


@pytest.mark.parametrize("case", FORMULAS)
def test_equals_its_formula_in_double_precision(case: str) -> None:
    settings, formula = FORMULAS[case]
    pairs = pairs_of(seed=1)
    expected_P = torch.tensor([formula(*pair) for pair in zip(*(one.tolist() for one in pairs), strict=True)])
    torch.testing.assert_close(loss_of(settings).losses(pairs), expected_P, rtol=1e-5, atol=1e-5)


def test_every_paired_loss_has_a_formula() -> None:
    assert {loss_of(settings).name for settings, _ in FORMULAS.values()} == set(PAIRED)


def test_kto_equals_its_formula_in_double_precision() -> None:
    loss = loss_of({"name": "kto", "beta": 0.3, "desirable_weight": 2.0, "undesirable_weight": 1.5})
    singles = singles_of()
    expected = [
        2.0 * (1 - sigmoid(0.3 * (logp - ref - 0.7))) if desirable else 1.5 * (1 - sigmoid(0.3 * (0.7 - logp + ref)))
        for logp, ref, desirable in zip(
            singles.logps_N.tolist(), singles.ref_logps_N.tolist(), singles.desirable_N.tolist(), strict=True
        )
    ]
    torch.testing.assert_close(loss.losses(singles), torch.tensor(expected), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", FORMULAS)
def test_gradients_are_those_of_finite_differences(case: str) -> None:
    loss = loss_of(FORMULAS[case][0])
    _, _, *rest = pairs_of(seed=2, num_pairs=8, dtype=torch.float64)
    moved = [one.requires_grad_() for one in pairs_of(seed=2, num_pairs=8, dtype=torch.float64)[:2]]
    assert torch.autograd.gradcheck(lambda chosen_P, rejected_P: loss.losses(Pairs(chosen_P, rejected_P, *rest)), moved)


def test_gradients_of_kto_are_those_of_finite_differences() -> None:
    singles = singles_of(dtype=torch.float64)
    loss = loss_of({"name": "kto", "undesirable_weight": 2.0})
    logps_N = singles.logps_N.requires_grad_()
    assert torch.autograd.gradcheck(lambda logps_N: loss.losses(singles._replace(logps_N=logps_N)), [logps_N])


def test_dpo_pushes_most_where_the_order_is_wrong() -> None:
    """The gradient to the chosen log-probability is -beta * sigmoid(-margin): DPO, equation after 7."""
    pairs = pairs_of(dtype=torch.float64)
    chosen_P = pairs.chosen_P.requires_grad_()
    (gradient_P,) = torch.autograd.grad(dpo_loss(*pairs[:4], beta=0.1).sum(), chosen_P)
    margin_P = 0.1 * ((chosen_P - pairs.ref_chosen_P) - (pairs.rejected_P - pairs.ref_rejected_P))
    torch.testing.assert_close(gradient_P, -0.1 * torch.sigmoid(-margin_P.detach()))


def test_rewards_of_orpo_are_mean_log_probabilities() -> None:
    pairs = pairs_of()
    nothing_P = torch.zeros_like(pairs.chosen_P)
    pairs = pairs._replace(ref_chosen_P=nothing_P, ref_rejected_P=nothing_P)
    chosen_P, rejected_P = loss_of({"name": "orpo", "beta": 0.3}).rewards(pairs)
    torch.testing.assert_close(chosen_P, 0.3 * pairs.chosen_P / pairs.chosen_lengths_P)
    torch.testing.assert_close(rejected_P, 0.3 * pairs.rejected_P / pairs.rejected_lengths_P)


@pytest.mark.parametrize(
    "settings",
    [
        *({"divergence": one} for one in ("reverse_kl", *DIVERGENCES)),
        {"name": "dpo_norm"},
        {"name": "cpo"},
        {"name": "simpo", "gamma": 0.7},
        {"name": "ipo"},
        {"name": "ipo", "length_normalized": False},
    ],
)
def test_rewards_are_what_the_loss_compares(settings: Any) -> None:
    """What is logged as rewards gives the loss again; the other losses take their rewards themselves."""
    loss, pairs = loss_of({**settings, "beta": 0.3}), pairs_of(dtype=torch.float64)
    if not loss.needs_reference:
        pairs = pairs._replace(ref_chosen_P=torch.zeros_like(pairs[2]), ref_rejected_P=torch.zeros_like(pairs[3]))
    chosen_P, rejected_P = loss.rewards(pairs)
    margin_P = chosen_P - rejected_P
    if loss.name == "ipo":
        expected_P = (margin_P / 0.3 - 1 / 0.6) ** 2
    else:
        expected_P = -torch.nn.functional.logsigmoid(margin_P - getattr(loss, "gamma", 0))
    torch.testing.assert_close(loss.losses(pairs), expected_P, rtol=1e-9, atol=1e-9)
    # Nothing that a side has gained or lost is told of the other.
    moved = pairs._replace(rejected_P=pairs.rejected_P - 1)
    torch.testing.assert_close(loss.rewards(moved)[0], chosen_P, rtol=0, atol=0)
    assert (loss.rewards(moved)[1] < rejected_P).all()


@pytest.mark.parametrize("name", PAIRED)
def test_a_loss_falls_as_the_chosen_pulls_away_from_the_rejected(name: str) -> None:
    """Around where nothing moved, rewards and loss agree on what is better."""
    loss = loss_of(name)
    pairs = where_nothing_moved(pairs_of(dtype=torch.float64))
    better = pairs._replace(rejected_P=pairs.rejected_P - 0.1)
    assert (loss.losses(better) < loss.losses(pairs)).all()
    chosen_P, rejected_P = loss.rewards(better)
    before_P = loss.rewards(pairs)
    assert (chosen_P - rejected_P > before_P[0] - before_P[1]).all()
