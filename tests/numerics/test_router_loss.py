"""The balancing loss equals transformers' own on one batch, and any split of the step gives the same gradient."""

import pytest
import torch
from torch import Tensor
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

from ftk.core.types import Batch, RouterLoad
from ftk.objectives.router import balance_loss, router_statistics, router_term

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
