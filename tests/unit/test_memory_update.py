"""What an optimizer takes for the while of its update, and the peak of a step that comes there."""

from dataclasses import replace
from functools import partial
from typing import Literal

import pytest
import torch
from test_memory_parameters import tiny_config
from torch import nn
from torch.profiler import ProfilerActivity, profile

from ftk.memory.analytic import training_peak
from ftk.memory.architecture import from_config
from ftk.memory.parameters import inventory
from ftk.memory.setup import Setup
from ftk.train.optimizers import AdamW, AdamW8bit, Sgd


@pytest.mark.filterwarnings("ignore:.*[Pp]rofiler.*:UserWarning")
@pytest.mark.parametrize("settings", [AdamW(), AdamW8bit(), Sgd(momentum=0.9)])
def test_an_update_takes_for_the_while_what_is_said(settings: AdamW | AdamW8bit | Sgd) -> None:
    weight = nn.Parameter(torch.randn(512, 512))
    weight.grad = torch.randn(512, 512)
    optimizer = settings.build([("weight", weight)], learning_rate=1e-3, weight_decay=0.0)
    optimizer.step()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        optimizer.step()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    alive = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        alive += event.nbytes()
        most = max(most, alive)
    assert most == pytest.approx(settings.update_bytes(weight.numel(), device="cpu"), rel=0.01, abs=64)


def test_eight_bit_states_are_updated_in_place_on_a_gpu_and_where_they_are_not_in_eight_bits() -> None:
    assert AdamW8bit().update_bytes(10**6, device="cuda") == 0
    assert AdamW8bit().update_bytes(4095, device="cpu") == 0
    assert AdamW8bit().update_bytes(4096, device="cpu") == 20 * 4096


def test_an_update_that_unpacks_stands_beside_the_gradients_of_all() -> None:
    """Weights, gradients, states, and five float32 numbers for each weight of the embedding, the largest."""
    architecture = from_config(tiny_config("llama") | {"hidden_size": 64, "vocab_size": 4096})
    assert architecture is not None
    weights = inventory(architecture)
    setup = Setup(
        rows=1,
        length=8,
        scored=7,
        device="cpu",
        compute_bytes=4,
        frozen_bytes=4,
        state_bytes=lambda num_weights: 2 * num_weights,
        update_bytes=partial(AdamW8bit().update_bytes, device="cpu"),
    )
    peak = training_peak(architecture, weights, setup)
    assert peak.moment == "the optimizer's update"
    assert peak.bytes.total == (4 + 4 + 2) * weights.total + 20 * 4096 * 64


@pytest.mark.parametrize(
    ("device", "copied"), [("cpu", 4 * 64 * 1760), ("cuda", 4 * 2 * (4 * 64 * 64 + 3 * 64 * 1760))]
)
def test_weight_decay_of_sgd_copies_gradients(device: Literal["cpu", "cuda"], copied: int) -> None:
    """On a CPU that of the largest matrix, on a GPU those of all but the embedding, which is not decayed."""
    shape = {"hidden_size": 64, "intermediate_size": 1760, "num_hidden_layers": 2, "vocab_size": 64}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 16, "tie_word_embeddings": True}
    architecture = from_config(tiny_config("llama") | shape | heads)
    assert architecture is not None
    weights = inventory(architecture)
    setup = Setup(rows=1, length=8, scored=7, compute_bytes=4, frozen_bytes=4, state_bytes=lambda num_weights: 0)
    setup = replace(setup, device=device, decay_copies=Sgd().decay_copies(device=device))
    peak = training_peak(architecture, weights, setup)
    assert peak.moment == "the optimizer's update"
    assert peak.bytes.optimizer == copied
