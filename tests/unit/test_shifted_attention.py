"""Shifted sparse attention against a dense mask, its gradients, packed rows, and a model that trains with it."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, MistralConfig, MistralForCausalLM

from ftk.core.errors import ModelError
from ftk.models.checkpointing import enable_activation_checkpointing
from ftk.models.load import load_model
from ftk.models.settings import ModelSettings
from ftk.models.shifted_sparse import enable_shifted_sparse_attention
from ftk.numerics.shifted_attention import shifted_sparse_attention

B, H, L, D, GROUP = 2, 4, 37, 6, 8


def states() -> list[Tensor]:
    torch.manual_seed(0)
    return [torch.randn(B, H, L, D, dtype=torch.float64, requires_grad=True) for _ in range(3)]


def positions() -> Tensor:
    """One row of three texts, and one of a single text."""
    packed = torch.cat([torch.arange(13), torch.arange(20), torch.arange(4)])
    return torch.stack([packed, torch.arange(L)])


def dense(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """By a mask over whole rows, head by head."""
    texts = torch.stack([torch.tensor([0] * 13 + [1] * 20 + [2] * 4), torch.zeros(L, dtype=torch.long)])
    heads = []
    for head in range(H):
        groups = (positions() + (GROUP // 2 if head >= H // 2 else 0)) // GROUP
        sees = (groups[:, :, None] == groups[:, None]) & (texts[:, :, None] == texts[:, None])
        sees &= torch.arange(L)[:, None] >= torch.arange(L)
        products = query[:, head] @ key[:, head].transpose(1, 2) / D**0.5
        heads.append(products.masked_fill(~sees, float("-inf")).softmax(-1) @ value[:, head])
    return torch.stack(heads, dim=1)


def test_values_and_gradients_are_those_of_a_dense_mask() -> None:
    ours, theirs = states(), states()
    got = shifted_sparse_attention(*ours, position_ids_BL=positions(), group=GROUP)
    expected = dense(*theirs)
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12)
    weights = torch.randn_like(got)
    (got * weights).sum().backward()
    (expected * weights).sum().backward()
    for our, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(our.grad, their.grad, rtol=1e-10, atol=1e-12)


def test_gradients_by_differences() -> None:
    torch.manual_seed(1)
    small = [torch.randn(1, 2, 7, 2, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    rows = torch.arange(7)[None]
    assert torch.autograd.gradcheck(
        lambda query, key, value: shifted_sparse_attention(query, key, value, position_ids_BL=rows, group=4), small
    )


def test_documents_of_a_row_see_nothing_of_each_other() -> None:
    query, key, value = states()
    out = shifted_sparse_attention(query, key, value, position_ids_BL=positions(), group=GROUP)
    out[0, :, 13:33].sum().backward()
    for state in (query, key, value):
        assert not state.grad[0, :, :13].any()
        assert not state.grad[0, :, 33:].any()
        assert not state.grad[1].any()


def test_half_of_the_heads_look_across_the_borders_of_the_others() -> None:
    query, key, value = states()
    out = shifted_sparse_attention(query, key, value, position_ids_BL=positions(), group=GROUP)
    # Position 8 of the row with one text begins a group, and lies in the middle of a shifted one.
    out[1, :, 8].sum().backward()
    seen = value.grad[1].abs().sum(-1) > 0
    assert seen[0].nonzero().flatten().tolist() == [8]
    assert seen[3].nonzero().flatten().tolist() == [4, 5, 6, 7, 8]


@pytest.mark.parametrize(("heads", "group"), [(3, 4), (2, 5)])
def test_what_cannot_be_halved_is_refused(heads: int, group: int) -> None:
    states_BHLD = torch.randn(1, heads, 8, 2)
    with pytest.raises(ValueError, match="cannot be halved"):
        shifted_sparse_attention(
            states_BHLD, states_BHLD, states_BHLD, position_ids_BL=torch.arange(8)[None], group=group
        )


def test_a_model_trains_with_it_and_evaluates_without(model_folder: Path) -> None:
    plain = load_model(ModelSettings(id=str(model_folder)), dtype=torch.float32).eval()
    model = load_model(ModelSettings(id=str(model_folder)), dtype=torch.float32).eval()
    enable_shifted_sparse_attention(model, group=8)
    row = torch.arange(3, 51)[None]
    packed = torch.cat([torch.arange(20), torch.arange(28)])[None]
    for named in ({}, {"position_ids": packed}):
        ours, theirs = (one(input_ids=row, use_cache=False, **named).logits for one in (model, plain))
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    for module in model.modules():
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = 0.0
    model.train()
    trained = model(input_ids=row, use_cache=False).logits
    assert (trained - plain(input_ids=row).logits).abs().max() > 1e-4
    together = model(input_ids=row, position_ids=packed, use_cache=False).logits
    alone = model(input_ids=row[:, 20:], use_cache=False).logits
    torch.testing.assert_close(together[:, 20:], alone, rtol=1e-5, atol=1e-5)


def test_recomputed_activations_give_the_same_gradients(model_folder: Path) -> None:
    gradients = []
    for checkpointed in (False, True):
        model = load_model(ModelSettings(id=str(model_folder)), dtype=torch.float32)
        enable_shifted_sparse_attention(model, group=8)
        if checkpointed:
            enable_activation_checkpointing(model)
        for module in model.modules():
            if hasattr(module, "attention_dropout"):
                module.attention_dropout = 0.0
        row = torch.arange(3, 51)[None]
        model.train()(input_ids=row, labels=row, use_cache=False).loss.backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, recomputed, rtol=1e-5, atol=1e-7)


def test_generation_with_padding_is_that_of_full_attention(model_folder: Path) -> None:
    plain = load_model(ModelSettings(id=str(model_folder)), dtype=torch.float32).eval()
    model = load_model(ModelSettings(id=str(model_folder)), dtype=torch.float32).eval()
    enable_shifted_sparse_attention(model, group=4)
    rows, mask = torch.arange(3, 27).view(2, 12), torch.ones(2, 12, dtype=torch.long)
    mask[0, :5] = 0
    asked = {"input_ids": rows, "attention_mask": mask, "max_new_tokens": 6, "do_sample": False}
    assert torch.equal(model.generate(**asked), plain.generate(**asked))


def test_what_it_cannot_replace_is_refused() -> None:
    windows = MistralForCausalLM(
        MistralConfig(
            hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1,
            vocab_size=32, sliding_window=16,
        )
    )  # fmt: skip
    with pytest.raises(ModelError, match="a window of their own"):
        enable_shifted_sparse_attention(windows, group=8)
    odd = GPT2LMHeadModel(GPT2Config(n_embd=15, n_head=3, n_layer=1, vocab_size=32))
    with pytest.raises(ModelError, match="3 heads cannot be halved"):
        enable_shifted_sparse_attention(odd, group=8)
