"""Shards that lie on the CPU while their mesh is of GPUs, as CPU offloading lays them: nothing moves them from there.

A group that is not there (`fake`) and a mesh of GPUs stand in for two processes with a GPU each: what would go to a
GPU fails, as this build of torch has none.
"""

import copy
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import CPUOffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor, Shard
from torch.distributed.tensor._dtensor_spec import DTensorSpec, TensorMeta
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode

from ftk.numerics.head import Budget, token_scores
from ftk.recipe.schema import Recipe
from ftk.runs.tuned_model import loading_device
from ftk.train.group import group_backend, keeps_casts
from ftk.train.optimizers import AdamW, Sgd
from ftk.train.shard import gradient_exchange, like_shard, offload_note, offload_policy, whole
from ftk.train.step import Step
from ftk.train.trained_state import TrainedState

GPU, CPU = torch.device("cuda", 0), torch.device("cpu")
WHOLE = torch.arange(10.0).view(5, 2)
OWN = WHOLE[3:]
"""The part of the second of two processes: the first has the odd row."""


@pytest.fixture
def mesh(monkeypatch: pytest.MonkeyPatch) -> Iterator[DeviceMesh]:
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    dist.init_process_group("fake", store=FakeStore(), rank=1, world_size=2)
    yield DeviceMesh("cuda", [0, 1])
    dist.destroy_process_group()


def shard(mesh: DeviceMesh, part: torch.Tensor, shape: torch.Size = WHOLE.shape) -> DTensor:
    meta = TensorMeta(shape, torch.empty(shape).stride(), part.dtype)
    return DTensor(part.clone(), DTensorSpec(mesh, (Shard(0),), tensor_meta=meta), requires_grad=False)


class OneWeight(nn.Module):
    def __init__(self, weight: DTensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_part_lies_where_its_shard_does(mesh, dtype):
    """`distribute_tensor` would move it to the mesh's kind of device."""
    found = like_shard(WHOLE.to(dtype), shard(mesh, torch.zeros(2, 2)))
    assert found.device == CPU
    assert found.shape == WHOLE.shape
    assert found.placements == (Shard(0),)
    torch.testing.assert_close(found.to_local(), OWN.to(dtype))


def test_there_may_be_no_part_left(mesh):
    short = WHOLE[:1]
    assert like_shard(short, shard(mesh, torch.zeros(0, 2), short.shape)).to_local().shape == (0, 2)


@pytest.mark.parametrize("optimizer", [AdamW(), Sgd(momentum=0.9)])
def test_states_are_kept_and_put_back_on_the_cpu(mesh, optimizer):
    """An update, a checkpoint and its restoring; the fused kernel is that of the CPU."""

    def trained() -> tuple[OneWeight, torch.optim.Optimizer]:
        model = OneWeight(shard(mesh, OWN))
        return model, optimizer.build(model.named_parameters(), learning_rate=0.1, weight_decay=0.0)

    model, built = trained()
    model.weight.grad = shard(mesh, torch.full_like(OWN, 2.0))
    built.step()
    torch.testing.assert_close(model.weight.to_local().detach(), OWN - (0.1 if optimizer.name == "adamw" else 0.2))
    kept = {name: value for name, value in built.state[model.weight].items() if value is not None}
    names = [name for name, value in kept.items() if isinstance(value, DTensor)]
    assert names
    # A checkpoint has whole ones; the group that would gather them is not there.
    states = {f"weight/{name}": WHOLE + len(name) if name in names else value for name, value in kept.items()}

    model, built = trained()
    restored = TrainedState(model, built)
    restored.load_weights({"weight"}, lambda name: WHOLE + 1)
    restored.load_optimizer_states(set(states), states.__getitem__, {})
    torch.testing.assert_close(model.weight.to_local().detach(), OWN + 1)
    for name in names:
        state = built.state[model.weight][name]
        assert isinstance(state, DTensor)
        assert state.device == CPU
        torch.testing.assert_close(state.to_local(), OWN + len(name))


def test_what_is_gathered_stays_on_the_cpu(mesh):
    """The group speaks gloo for it; what it would say is not looked at."""
    assert whole(shard(mesh, OWN)).device == CPU


@pytest.fixture
def alone() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_shards_give_their_gradients_away_after_each_micro_batch(alone):
    """Until they are exchanged, `fully_shard` keeps gradients whole on each device, where parts are reckoned with."""
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1))
    plain = copy.deepcopy(model)
    for layer in model:
        fully_shard(layer, offload_policy=offload_policy("fsdp_offload", CPU))
    fully_shard(model, offload_policy=offload_policy("fsdp_offload", CPU))
    rows = torch.randn(2, 5, 3)
    for number, batch in enumerate(rows, start=1):
        with gradient_exchange(model, is_last=number == len(rows)):
            model(batch).sum().backward()
        plain(batch).sum().backward()
        for own, other in zip(model.parameters(), plain.parameters(), strict=True):
            assert isinstance(own.grad, DTensor)
            torch.testing.assert_close(own.grad.to_local(), other.grad)


def test_where_nothing_is_offloaded_is_said():
    def note(strategy: str, device: torch.device, processes: int) -> str | None:
        return offload_note(strategy, SimpleNamespace(device=device, num_processes=processes))

    assert "in one process" in note("fsdp_offload", GPU, 1)
    assert "on a CPU" in note("fsdp_offload", CPU, 2)
    assert note("fsdp_offload", GPU, 2) is note("fsdp", CPU, 2) is None


def test_the_norm_of_offloaded_gradients_goes_to_the_device_of_the_losses():
    """There it is stacked with them. `meta` is another kind of device that a build for CPUs has."""
    weight = nn.Parameter(torch.zeros(3))
    weight.grad = torch.tensor([3.0, 4.0, 0.0])
    step = Step(
        model=nn.Module(),
        objective=SimpleNamespace(),
        optimizer=torch.optim.SGD([weight], lr=0.1),
        accelerator=SimpleNamespace(device=torch.device("meta"), scaler=None, num_processes=1),
        max_grad_norm=None,
    )
    norm = step._gradient_norm()
    assert norm.device.type == "meta"


def test_the_group_speaks_for_tensors_of_both_devices(monkeypatch):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    # Accelerate would take one process by itself for a group.
    assert group_backend("fsdp_offload", GPU) == {}
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert group_backend("fsdp_offload", GPU) == {"backend": "cpu:gloo,cuda:nccl"}
    assert group_backend("fsdp", GPU) == group_backend("ddp", GPU) == group_backend("fsdp_offload", CPU) == {}


def test_casts_of_all_weights_are_not_kept_beside_shards(monkeypatch):
    """They would be the whole model in 16 bits on each device, to the end of the forward pass."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert keeps_casts("ddp")
    assert not keeps_casts("fsdp")
    assert not keeps_casts("fsdp_offload")
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert keeps_casts("fsdp_offload")


@pytest.mark.parametrize("keeps", [True, False])
def test_chunks_of_the_loss_share_one_cast_of_the_head(keeps):
    """The head is the one weight that is used more than once in a forward pass."""
    head = nn.Linear(8, 16, bias=False)
    hidden, targets = torch.randn(6, 8, requires_grad=True), torch.arange(6)
    budget = Budget(chunk_tokens=2, kept_bytes=10**6)
    with Casts((16, 8)) as casts, torch.autocast("cpu", torch.bfloat16, cache_enabled=keeps):
        found = token_scores(head, hidden, targets, vocabulary_size=16, budget=budget)
    assert casts.number == 1
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(found.logps_T, token_scores(head, hidden, targets, vocabulary_size=16).logps_T)


class Casts(TorchDispatchMode):
    """Counts conversions of tensors of one shape."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self._shape, self.number = shape, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.number += func is torch.ops.aten._to_copy.default and tuple(args[0].shape) == self._shape
        return func(*args, **(kwargs or {}))


def test_memory_is_pinned_for_a_gpu_alone():
    on_gpu, on_cpu = offload_policy("fsdp_offload", GPU), offload_policy("fsdp_offload", CPU)
    assert isinstance(on_gpu, CPUOffloadPolicy)
    assert isinstance(on_cpu, CPUOffloadPolicy)
    assert on_gpu.pin_memory
    assert not on_cpu.pin_memory
    assert not isinstance(offload_policy("fsdp", GPU), CPUOffloadPolicy)


@pytest.mark.parametrize(
    ("changes", "processes", "kind"),
    [
        ({}, 2, "cpu"),
        ({"parallel": {"strategy": "fsdp"}}, 2, "cpu"),
        ({}, 1, "cuda"),
        ({"parallel": {"strategy": "ddp"}}, 2, "cuda"),
        # These compute with the whole model before it is sharded.
        ({"model": {"id": "ftk://tiny", "attention": "flash_attention_2"}}, 2, "cuda"),
        ({"task": "preference", "data": "ftk://orders/preference"}, 2, "cuda"),
    ],
)
def test_what_no_gpu_holds_whole_is_loaded_to_the_cpu(changes, processes, kind):
    recipe = Recipe.model_validate(
        {"model": "ftk://tiny", "data": "ftk://orders/train", "parallel": {"strategy": "fsdp_offload"}, **changes}
    )
    assert loading_device(recipe, SimpleNamespace(device=GPU, num_processes=processes)).type == kind
