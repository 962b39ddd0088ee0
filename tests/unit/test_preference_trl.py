"""Each preference loss against TRL's own code on the same numbers.

Shapes: P pairs, N completions.
"""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from preference_stand_in import P, loss_of, pairs_of, singles_of
from torch import Tensor

from ftk.objectives.preference.compared import Pairs


def accelerator() -> Any:
    alone = {name: lambda value: value for name in ("gather", "gather_for_metrics")}
    return SimpleNamespace(device=torch.device("cpu"), **alone)


def trl_model(logps_NL: Tensor) -> Any:
    """What TRL's trainers call: a model whose tokens have these log-probabilities."""
    others = {name: torch.zeros_like(logps_NL) for name in ("entropy", "mean_logits")}
    outputs = SimpleNamespace(log_probs=logps_NL, is_top1=torch.zeros_like(logps_NL, dtype=torch.bool), **others)
    return lambda **_: outputs


def spread(logps_N: Tensor, lengths_N: Tensor) -> tuple[Tensor, Tensor]:
    """Token log-probabilities with these sums, and the completion mask with a prompt token before."""
    places_L = torch.arange(int(lengths_N.max()))
    inside_NL = places_L < lengths_N[:, None]
    mask_NL = torch.nn.functional.pad(inside_NL.long(), (1, 0))
    return torch.where(inside_NL, (logps_N / lengths_N)[:, None], 0.0), mask_NL


def trl_dpo(pairs: Pairs, loss_type: str, **settings: Any) -> Tensor:
    from collections import defaultdict

    from trl.trainer.dpo_trainer import DPOTrainer

    logps_NL, mask_NL = spread(torch.cat(pairs[:2]), torch.cat(pairs[4:]))
    trainer = SimpleNamespace(
        model=SimpleNamespace(training=True),
        accelerator=accelerator(),
        aux_loss_enabled=False,
        ld_alpha=None,
        precompute_ref_logps=True,
        f_divergence_type=settings.pop("f_divergence_type", "reverse_kl"),
        f_alpha_divergence_coef=settings.pop("f_alpha_divergence_coef", 0.5),
        loss_types=[loss_type],
        loss_weights=[1.0],
        use_weighting=False,
        beta=settings.pop("beta", 0.1),
        label_smoothing=settings.pop("label_smoothing", 0.0),
        _metrics=defaultdict(lambda: defaultdict(list)),
        _total_train_tokens=0,
        _tp_size=1,
    )
    assert not settings
    inputs = {
        "input_ids": torch.zeros_like(mask_NL),
        "attention_mask": torch.ones_like(mask_NL),
        "completion_mask": mask_NL,
        "ref_chosen_logps": pairs.ref_chosen_P,
        "ref_rejected_logps": pairs.ref_rejected_P,
    }
    return DPOTrainer._compute_loss(trainer, trl_model(logps_NL), inputs, False)


TRL_DPO: list[tuple[Any, str, dict[str, Any]]] = [
    ("dpo", "sigmoid", {}),
    ({"beta": 0.4, "divergence": "forward_kl"}, "sigmoid", {"beta": 0.4, "f_divergence_type": "forward_kl"}),
    ({"divergence": "js"}, "sigmoid", {"f_divergence_type": "js_divergence"}),
    ({"divergence": "alpha"}, "sigmoid", {"f_divergence_type": "alpha_divergence"}),
    (
        {"divergence": {"name": "alpha", "alpha": 0.2}},
        "sigmoid",
        {"f_divergence_type": "alpha_divergence", "f_alpha_divergence_coef": 0.2},
    ),
    ({"name": "dpo_norm", "beta": 3}, "sigmoid_norm", {"beta": 3}),
    ({"name": "robust", "flip_probability": 0.2}, "robust", {"label_smoothing": 0.2}),
    (
        {"name": "robust", "divergence": "js"},
        "robust",
        {"label_smoothing": 0.1, "f_divergence_type": "js_divergence"},
    ),
    ("ipo", "ipo", {}),
    ({"name": "hinge", "beta": 0.3}, "hinge", {"beta": 0.3}),
    ("apo_zero", "apo_zero", {}),
    ("apo_down", "apo_down", {}),
]


@pytest.mark.peers
@pytest.mark.parametrize(("settings", "loss_type", "theirs"), TRL_DPO)
def test_equals_trl_dpo_trainer(settings: Any, loss_type: str, theirs: dict[str, Any]) -> None:
    for seed in range(4):
        # One pair at a time: TRL tells the mean alone.
        pairs = pairs_of(seed=seed, num_pairs=6)
        for at in range(6):
            pair = Pairs(*(one[at : at + 1] for one in pairs))
            expected = trl_dpo(pair, loss_type, **theirs)
            torch.testing.assert_close(loss_of(settings).losses(pair).mean(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.peers
@pytest.mark.parametrize(
    ("settings", "loss_type"),
    [("cpo", "sigmoid"), ({"name": "hinge", "reference": False}, "hinge"), ("simpo", "simpo")],
)
def test_equals_trl_cpo_trainer(settings: Any, loss_type: str) -> None:
    from trl.experimental.cpo import CPOTrainer

    loss = loss_of(settings)
    pairs = pairs_of(seed=3)._replace(ref_chosen_P=torch.zeros(P), ref_rejected_P=torch.zeros(P))
    trainer = SimpleNamespace(
        alpha=0.0,
        beta=loss.beta,
        label_smoothing=0.0,
        loss_type=loss_type,
        simpo_gamma=loss.gamma if loss_type == "simpo" else None,
        accelerator=accelerator(),
    )
    theirs = pairs.per_token() if loss_type == "simpo" else pairs
    losses_P, chosen_P, rejected_P = CPOTrainer.cpo_loss(trainer, theirs.chosen_P, theirs.rejected_P)
    torch.testing.assert_close(loss.losses(pairs), losses_P, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(loss.rewards(pairs), (chosen_P, rejected_P), rtol=1e-5, atol=1e-5)


@pytest.mark.peers
def test_equals_trl_orpo_trainer() -> None:
    from trl.experimental.orpo import ORPOTrainer

    loss = loss_of("orpo")
    pairs = pairs_of(seed=4)._replace(ref_chosen_P=torch.zeros(P), ref_rejected_P=torch.zeros(P))
    trainer = SimpleNamespace(beta=0.1, accelerator=accelerator())
    losses_P, *rewards, _, _ = ORPOTrainer.odds_ratio_loss(trainer, *pairs.per_token()[:2])
    # TRL tells what is to be subtracted.
    torch.testing.assert_close(loss.losses(pairs), -losses_P, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(loss.rewards(pairs), tuple(rewards), rtol=1e-5, atol=1e-5)


@pytest.mark.peers
@pytest.mark.parametrize("aside", [2.0, -2.0])
def test_equals_trl_kto_trainer(aside: float) -> None:
    from collections import defaultdict

    from trl.trainer.kto_trainer import KTOTrainer

    loss = loss_of({"name": "kto", "beta": 0.2, "desirable_weight": 1.5, "undesirable_weight": 0.7})
    others = pairs_of(seed=6)
    baseline = (others.chosen_P - others.ref_chosen_P + aside).mean()
    singles = singles_of(seed=5)._replace(baseline=baseline)
    logps_NL, mask_NL = spread(singles.logps_N, singles.lengths_N)
    trainer = SimpleNamespace(
        model=SimpleNamespace(training=True),
        accelerator=accelerator(),
        aux_loss_enabled=False,
        precompute_ref_logps=True,
        calculate_KL=True,
        loss_type="kto",
        beta=0.2,
        desirable_weight=1.5,
        undesirable_weight=0.7,
        _compute_kl_logps=lambda model, batch: others.chosen_P + aside,
        _metrics=defaultdict(lambda: defaultdict(list)),
        _total_train_tokens=0,
        _tp_size=1,
    )
    inputs = {
        "input_ids": torch.zeros_like(mask_NL),
        "attention_mask": torch.ones_like(mask_NL),
        "completion_mask": mask_NL,
        "label": singles.desirable_N,
        "ref_logps": singles.ref_logps_N,
        "ref_KL_logps": others.ref_chosen_P,
    }
    expected = KTOTrainer._compute_loss(trainer, trl_model(logps_NL), inputs, False)
    torch.testing.assert_close(loss.losses(singles).mean(), expected, rtol=1e-5, atol=1e-5)
    rewards_N = loss.rewards(singles)
    torch.testing.assert_close(
        rewards_N[singles.desirable_N].mean().item(), trainer._metrics["train"]["rewards/chosen"][0], rtol=1e-5, atol=0
    )
