"""Rows as training reads them in a small Llama: what has to hold of every kind of them, however weighed."""

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from ftk.core.types import Examples, Objective
from ftk.data.batches import TrainBatches
from ftk.models.scoring import ScoringModel
from ftk.train.group import join_group
from ftk.train.step import Step


def small_llama(*, vocabulary: int, positions: int) -> ScoringModel:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    return ScoringModel(
        LlamaForCausalLM(LlamaConfig(**sizes, vocab_size=vocabulary, max_position_embeddings=positions))
    )


def one_step(
    examples: Examples, *, packing: bool, max_length: int, micro_batch_size: int | None = None
) -> TrainBatches:
    """All of them in one optimizer step, in one micro-batch where nothing else is said."""
    return TrainBatches(
        examples,
        batch_size=len(examples),
        micro_batch_size=micro_batch_size or len(examples),
        packing=packing,
        max_length=max_length,
        pad_token_id=0,
        seed=0,
    )


def assert_rows_stay_apart(examples: Examples, *, vocabulary: int, max_length: int) -> None:
    """Packed rows lose what unpacked ones do, and no row has a gradient to another."""
    scoring = small_llama(vocabulary=vocabulary, positions=max_length).eval()
    losses = []
    for packing in (True, False):
        some = next(iter(one_step(examples, packing=packing, max_length=max_length)))
        losses.append(sum(-(scoring(one).logps_BL * one.weights_BL).sum() for one in some))
        assert any(one.packed for one in some) is packing
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-6, atol=0)
    packed = next(one for one in next(iter(one_step(examples, packing=True, max_length=max_length))) if one.packed)
    row = int((packed.document_ids_BL.max(dim=1).values > 1).nonzero()[0])
    embedded: list[Tensor] = []
    scoring.causal_lm.get_input_embeddings().register_forward_hook(
        lambda module, arguments, output: embedded.append(output)
    )
    second_L = packed.document_ids_BL[row] == 2
    learned_L = (scoring(packed).logps_BL * packed.weights_BL)[row][second_L]
    (gradient,) = torch.autograd.grad(learned_L.sum(), embedded[0])
    assert not gradient[row][~second_L].any()
    assert gradient[row][second_L].any()


def assert_any_split_is_one_update(
    examples: Examples, objective: Objective, *, vocabulary: int, max_length: int
) -> None:
    """One micro-batch, some of three rows, single rows, and single packed rows move the model alike."""
    moved = []
    for size, packing in ((None, False), (3, False), (1, False), (1, True)):
        scoring = small_llama(vocabulary=vocabulary, positions=max_length)
        step = Step(
            model=scoring,
            objective=objective,
            optimizer=torch.optim.SGD(scoring.parameters(), lr=1.0),
            accelerator=join_group("fp32"),
            max_grad_norm=None,
        )
        batches = one_step(examples, packing=packing, max_length=max_length, micro_batch_size=size)
        step(next(iter(batches)), learning_rate=1.0)
        moved.append(torch.cat([parameter.detach().flatten() for parameter in scoring.parameters()]))
    for other in moved[1:]:
        torch.testing.assert_close(other, moved[0], rtol=1e-5, atol=2e-6)
