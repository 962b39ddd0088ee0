"""What is followed is what is there, by hand; and what a longer model takes is told from two shorter ones."""

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn import functional as F
from torch.utils._pytree import tree_leaves

from ftk.memory.follow import Follow, Peak
from ftk.memory.gpu_attention import gpu_attention
from ftk.memory.imagine import Imagine, imagining
from ftk.memory.repeat import moment_of, prolonged, short_lengths


def test_a_step_of_two_layers_by_hand() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    follow = Follow()
    follow.take(model.parameters(), "weights")
    numbers = 4 * 8 + 8 + 8 * 2 + 2
    assert follow.held == {"weights": 4 * numbers}
    with follow:
        model(torch.ones(3, 4)).sum().backward()
        follow.take([parameter.grad for parameter in model.parameters()], "gradients")
        optimizer.step()
        follow.take(tree_leaves([list(state.values()) for state in optimizer.state.values()]), "optimizer")
    # Two means of each weight, and one count of steps for each of the four tensors.
    expected = {"weights": 4 * numbers, "gradients": 4 * numbers, "optimizer": 8 * numbers + 4 * 4}
    assert {kind: held for kind, held in follow.held.items() if held} == expected
    assert follow.total == sum(expected.values())
    optimizer.zero_grad(set_to_none=True)
    assert follow.held["gradients"] == 0


def test_the_peak_is_the_moment_at_which_most_was_alive() -> None:
    follow = Follow()
    with follow:
        follow.moment = "first"
        one = torch.empty(100)
        two = torch.empty(50)
        del one
        follow.moment = "second"
        three = torch.empty(10)
        view = three[:5]
        del three
    assert follow.peaks["first"].total == follow.peak.total == 600
    assert follow.peaks["second"] == Peak(240, {"other": 240}, "second")
    del two, view
    assert follow.total == 0


def test_allocations_are_as_large_as_the_allocator_makes_them() -> None:
    with Follow(lambda num_bytes: -(-num_bytes // 512) * 512) as follow:
        held = torch.empty(129)
    assert follow.total == 1024
    del held


def test_imagined_weights_take_no_memory_and_real_indices_stay_real() -> None:
    with imagining() as fake:
        table = nn.Embedding(10**9, 64)
    with Imagine(fake):
        rows = table(torch.arange(3)[torch.tensor([True, False, True])])
        assert rows.shape == (2, 64)
        assert rows.sum().item() == 1.0
        assert torch.equal(rows, rows.view(2, 64))
        assert not torch.equal(rows, rows + 0)
        assert torch.arange(3).tolist() == [0, 1, 2]


def test_large_masks_are_imagined_too() -> None:
    with Imagine(imagining()):
        places = torch.arange(5000)
        sees = places[:, None] >= places
        assert isinstance(sees, FakeTensor)
        assert not isinstance(places[:10, None] >= places, FakeTensor)


def test_attention_on_a_gpu_repeats_no_keys_and_keeps_one_number_a_place() -> None:
    query = torch.empty(1, 4, 128, 16, dtype=torch.bfloat16, requires_grad=True)
    key, value = (torch.empty(1, 2, 128, 16, dtype=torch.bfloat16, requires_grad=True) for _ in range(2))
    with gpu_attention(masks=True), Follow() as follow:
        output = F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
        assert output.shape == query.shape
        assert follow.total == 4 * 128 * (16 * 2 + 4)
        follow.restart()
        output.sum().backward()
    # Sums in float32 for every head's query, a dot product a place; the gradients, those of keys for each query head.
    heads = 4 * 128 * (16 * 4 + 4) + 4 * 128 * 16 * 2 + 2 * 2 * 128 * 16 * 2 + 2 * 4 * 128 * 16 * 2
    assert follow.peak.total >= 4 * 128 * (16 * 2 + 4) + heads
    assert key.grad is not None


def test_equal_layers_are_left_out_and_patterns_kept_whole() -> None:
    assert short_lengths(["a"] * 32) == (3, 4)
    assert short_lengths(["a"] * 7) is None
    assert short_lengths(["dense", *["experts"] * 30]) == (4, 5)
    # One layer in six attends to all, and the rest of a division stays at the end.
    assert short_lengths((["near"] * 5 + ["all"]) * 5 + ["near"] * 2) == (8, 14)
    assert short_lengths([str(number) for number in range(32)]) is None


def test_each_moment_is_prolonged_by_itself() -> None:
    def peaks(num_layers: int) -> dict[str, Peak]:
        kept, learned = {"activations": 10 * num_layers + 50}, {"gradients": 12 * num_layers}
        return {"last": Peak(10 * num_layers + 50, kept, "last"), "first": Peak(12 * num_layers, learned, "first")}

    highest = max(prolonged(peaks(3), peaks(4), periods=29), key=lambda peak: peak.total)
    assert highest == peaks(32)["first"]
    highest = max(prolonged(peaks(3), peaks(4), periods=9), key=lambda peak: peak.total)
    assert highest == peaks(12)["last"]
    assert [moment_of(number, 5) for number in range(5)] == [
        "layer 1",
        "layer 2",
        "inner layers",
        "inner layers",
        "last layer",
    ]
