"""The balancing loss equals transformers' own on one batch, and any split of the step gives the same gradient."""

import pytest
import torch
from families import model_of
from preference_objectives import batch_of as batch_of_examples
from preference_objectives import examples
from torch import Tensor
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

from ftk.core.types import Batch, RouterLoad
from ftk.models.scoring import ScoringModel
from ftk.objectives.preference.task import Preference
from ftk.objectives.router import balance_loss, router_statistics, router_term
from ftk.train.group import join_group
from ftk.train.step import Step

EXPERTS, CHOSEN, LAYERS = 6, 2, 3


def batch_of(num_tokens: int) -> Batch:
    empty = torch.zeros(1, num_tokens)
    return Batch(
        input_ids_BL=empty.long(),
        position_ids_BL=empty.long(),
        document_ids_BL=empty.long(),
        weights_BL=empty,
        answers_BL=empty.bool(),
        packed=False,
        num_tokens=num_tokens,
        num_examples=1,
        indices=(0,),
    )


def load_of(logits: tuple[Tensor, ...]) -> RouterLoad:
    probabilities = torch.cat([layer.softmax(-1) for layer in logits])
    chosen = probabilities.topk(CHOSEN).indices
    counts = torch.bincount(chosen.flatten(), minlength=EXPERTS).to(torch.float64)
    return RouterLoad(counts, probabilities.sum(0), torch.tensor(float(len(probabilities))))


def layers(num_tokens: int, seed: int) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(
        torch.randn(num_tokens, EXPERTS, generator=generator, dtype=torch.float64).requires_grad_()
        for _ in range(LAYERS)
    )


def test_perfect_balance_is_the_number_of_chosen_experts() -> None:
    """Each expert has share k / E and probability 1 / E: E * E * (k / E) * (1 / E) = k."""
    loss = balance_loss(torch.full((EXPERTS,), CHOSEN / EXPERTS), torch.full((EXPERTS,), 1 / EXPERTS))
    assert loss.item() == pytest.approx(CHOSEN, rel=1e-6)


def test_equals_transformers_on_one_batch() -> None:
    logits = layers(20, seed=0)
    load, batch = load_of(logits), batch_of(20)
    term = router_term(load, batch, router_statistics(load, batch)) / 20
    expected = load_balancing_loss_func(tuple(layer.float() for layer in logits), EXPERTS, CHOSEN)
    torch.testing.assert_close(term.float(), expected, rtol=1e-5, atol=1e-6)


def test_any_split_of_the_step_gives_the_same_gradient() -> None:
    logits = layers(20, seed=1)
    whole = load_of(logits)
    term = router_term(whole, batch_of(20), router_statistics(whole, batch_of(20))) / 20
    expected = torch.autograd.grad(term, logits)

    parts = [slice(0, 3), slice(3, 11), slice(11, 20)]
    loads = [load_of(tuple(layer[part] for layer in logits)) for part in parts]
    batches = [batch_of(part.stop - part.start) for part in parts]
    pieces = [router_statistics(load, batch) for load, batch in zip(loads, batches, strict=True)]
    statistics = {name: torch.stack([piece[name] for piece in pieces]).sum(0) for name in pieces[0]}
    split = [router_term(load, batch, statistics) / 20 for load, batch in zip(loads, batches, strict=True)]
    actual = torch.autograd.grad(torch.stack(split).sum(), logits)
    torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-9)


def test_a_row_that_keeps_processes_in_step_counts_nothing() -> None:
    load = load_of(layers(4, seed=2))
    statistics = router_statistics(load, batch_of(0))
    assert statistics["router_counts"].sum() == 0
    assert statistics["router_tokens"] == 0
    whole = {"router_counts": torch.ones(EXPERTS), "router_tokens": torch.tensor(9.0)}
    assert router_term(load, batch_of(0), whole) == 0


@pytest.mark.parametrize("trees", [True, False], ids=["prompts shared", "prompts repeated"])
@pytest.mark.parametrize("loss", ["dpo", "kto"])
def test_preferences_are_learned_beside_the_balance_of_experts(loss: str, trees: bool) -> None:
    """Any split gives the same gradients, and the balance is that of the same rows without a preference."""
    model = model_of("qwen3_moe")
    scoring = ScoringModel(model, router=True, trees=trees)
    data = examples(6, unpaired=loss == "kto", seed=5)
    task = Preference.model_validate({"loss": loss, "router_loss_weight": 0.4})
    found: list[dict[str, Tensor]] = []
    results = []
    for sizes in ([6], [1, 3, 2]):
        batches, start = [], 0
        for size in sizes:
            batches.append(batch_of_examples([[one] for one in data[start : start + size]], spare=data[0]))
            start += size
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        seen: dict[str, Tensor] = {}
        optimizer.register_step_pre_hook(
            lambda *_, seen=seen: seen.update(
                {name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None}
            )
        )
        step = Step(
            model=scoring,
            objective=task.objective(),
            optimizer=optimizer,
            accelerator=join_group("fp32"),
            max_grad_norm=None,
        )
        results.append(step(batches, learning_rate=0.0))
        found.append(seen)
    whole, parts = results
    assert whole.terms.keys() == {"preference", "router"}
    assert parts.terms == pytest.approx(whole.terms, rel=1e-5)
    floor = 1e-3 * whole.grad_norm
    for name, gradient in found[0].items():
        assert (found[1][name] - gradient).norm() <= 1e-5 * max(float(gradient.norm()), floor), name
    batch = batch_of_examples([[one] for one in data], spare=data[0])
    load = scoring(batch).router
    assert load is not None
    balance = balance_loss(load.counts_E / load.num_tokens, load.probabilities_E / load.num_tokens)
    assert whole.terms["router"] == pytest.approx(0.4 * balance.item(), rel=1e-5)
