"""How the model is spread over processes: a copy on each, or every weight in shards, by torch's `fully_shard`."""

import inspect
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, MixedPrecisionPolicy, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor, Shard
from torch.nn.parallel import DistributedDataParallel

from ftk.core.errors import RecipeError
from ftk.train.settings import Strategy

if TYPE_CHECKING:
    from accelerate import Accelerator


def spread(model: nn.Module, accelerator: "Accelerator", *, strategy: Strategy, compile: bool = False) -> nn.Module:
    """The model, a `ScoringModel` or the like, ready to be called for training on this process's device.

    `compile` compiles each decoder layer by itself: they share one compilation, which starts sooner than the whole.

    Raises:
        RecipeError: shards of weights that are stored in a quantized format.
    """
    if compile:
        for layer in decoder_layers(model):
            layer.compile()
    is_alone = accelerator.num_processes == 1
    shards = strategy != "ddp" and not is_alone
    # Accelerate brings autocast and the device. What spreads the model is chosen here: Accelerate's own way of
    # `fully_shard` is for GPUs alone, and its DDP takes arguments that torch 2.13 has renamed.
    model = accelerator.prepare_model(model, evaluation_mode=True, device_placement=not shards)
    if is_alone:
        return model
    return _shard(model, accelerator, strategy=strategy) if shards else _copy(model, accelerator)


def decoder_layers(model: nn.Module) -> list[nn.Module]:
    """The repeated blocks of a model: members of its outermost lists of modules that hold parameters."""
    layers: list[nn.Module] = []
    inside: tuple[str, ...] = ()
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and not name.startswith(inside or ("\0",)):
            inside += (f"{name}.",)
            layers += [layer for layer in module if next(layer.parameters(), None) is not None]
    return layers


def _copy(model: nn.Module, accelerator: "Accelerator") -> nn.Module:
    # Buffers are constants of the model, the same everywhere: nothing to exchange before each forward pass.
    has_new_name = "forward_sync_buffers" in inspect.signature(DistributedDataParallel.__init__).parameters
    options: dict[str, Any] = {"forward_sync_buffers" if has_new_name else "broadcast_buffers": False}
    if accelerator.device.type != "cpu":
        options["device_ids"] = [accelerator.device]
    # A view saves a second copy of the gradients.
    return DistributedDataParallel(model, gradient_as_bucket_view=True, **options)


def _shard(model: nn.Module, accelerator: "Accelerator", *, strategy: Strategy) -> nn.Module:
    quantized = [name for name, parameter in model.named_parameters() if not parameter.is_floating_point()]
    if quantized:
        raise RecipeError(
            f"parallel.strategy: {strategy} cannot shard quantized weights ({quantized[0]} and {len(quantized) - 1} "
            "more). Use ddp, which keeps a copy on each process, or leave quantization out"
        )
    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    # Frozen weights travel as they are stored; gradients are summed in float32 however the layers compute.
    policy = MixedPrecisionPolicy(reduce_dtype=torch.float32, cast_forward_inputs=False)
    if next(model.parameters()).dtype == torch.float64:
        policy = MixedPrecisionPolicy(cast_forward_inputs=False)
    # Scores are shaped by a view in the end, and nobody writes into them.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor", category=UserWarning)
    where = offload_policy(strategy, accelerator.device)
    # Each is moved to the device by itself, and leaves it in parts, so that no device ever holds the whole model.
    for layer in decoder_layers(model):
        fully_shard(layer, mesh=mesh, mp_policy=policy, offload_policy=where)
    fully_shard(model, mesh=mesh, mp_policy=policy, offload_policy=where)
    return model


def offload_policy(strategy: Strategy, device: torch.device) -> OffloadPolicy:
    """Where shards lie: under `fsdp_offload` in the machine's memory, pinned so that a GPU copies beside its work.

    A CPU's shards lie there anyway: the policy then changes nothing.
    """
    return CPUOffloadPolicy(pin_memory=device.type == "cuda") if strategy == "fsdp_offload" else OffloadPolicy()


def offload_note(strategy: Strategy, accelerator: "Accelerator") -> str | None:
    """A sentence where `fsdp_offload` offloads nothing, which nobody should have to find out."""
    if strategy != "fsdp_offload":
        return None
    if accelerator.num_processes == 1:
        return "parallel.strategy: fsdp_offload does nothing in one process, which holds the whole model"
    if accelerator.device.type == "cpu":
        return "parallel.strategy: fsdp_offload shards as fsdp does on a CPU, whose memory is the machine's"
    return None


def unwrapped(model: nn.Module) -> nn.Module:
    """The model beneath what DDP wraps around it; a sharded model is its own."""
    return model.module if isinstance(model, DistributedDataParallel) else model


@contextmanager
def gradient_exchange(model: nn.Module, *, is_last: bool) -> Iterator[None]:
    """Forward and backward of one micro-batch; copies exchange gradients after the last alone.

    Shards give theirs away after each: until then `fully_shard` keeps gradients whole on every device
    (`unsharded_accumulated_grad` of torch 2.13), which is what sharding is there to spare.
    """
    if isinstance(model, DistributedDataParallel) and not is_last:
        with model.no_sync():
            yield
    else:
        yield


def is_sharded(model: nn.Module) -> bool:
    """Whether each process holds only a part of every weight."""
    return isinstance(unwrapped(model), FSDPModule)


def whole(tensor: Tensor) -> Tensor:
    """The whole of a sharded tensor, gathered from all processes, which must all call this; others as they are."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def local(tensor: Tensor) -> Tensor:
    """This process's part of a sharded tensor; others as they are."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def like_shard(tensor: Tensor, shard: Tensor) -> Tensor:
    """This process's part of a whole tensor, laid out as `shard` is, where that lies; without communication."""
    if not isinstance(shard, DTensor):
        return tensor.to(shard.device)
    # Not by `distribute_tensor`, which moves all of it to the mesh's kind of device: offloaded shards of a mesh of GPUs
    # lie on the CPU, and their optimizer's states must.
    part = torch.empty_like(shard, dtype=tensor.dtype)
    (placement,) = shard.placements
    assert isinstance(placement, Shard)
    parts = tensor.chunk(shard.device_mesh.size(), dim=placement.dim)
    own = shard.device_mesh.get_local_rank()
    # There are fewer parts than processes where a dimension is short.
    if own < len(parts):
        local(part).copy_(parts[own])
    return part


def full_state_dict(model: nn.Module, accelerator: "Accelerator") -> dict[str, Tensor]:
    """The whole state dict of a sharded or copied model, on the CPU of the first process; empty on the others.

    Every process must call this. Pass the module whose names are wanted, such as `unwrapped(model).causal_lm`.
    """
    state: Mapping[str, Any] = model.state_dict()
    gathered: dict[str, Tensor] = {}
    for name, value in state.items():
        if not isinstance(value, Tensor):
            continue
        full = whole(value.detach())
        if accelerator.is_main_process:
            gathered[name] = full.cpu()
    return gathered


@contextmanager
def without_backward(model: nn.Module) -> Iterator[None]:
    """Around forward passes alone, after which every weight is in shards again.

    `fully_shard` keeps the outermost group (embedding, last norm, head) whole after a forward pass, for the backward
    pass to come, and while it is whole the model's parameters are not those that the optimizer moves.
    """
    try:
        yield
    finally:
        for block in _blocks(model):
            block.reshard()


@contextmanager
def gathered(model: nn.Module) -> Iterator[None]:
    """Within, every weight is whole on each process, so that parts of the model can be called in any order.

    Generation needs this: processes decode different numbers of tokens, and would wait for each other's shards.
    """
    outermost: object = model
    blocks = _blocks(model)
    for block in blocks:
        block.set_reshard_after_forward(False, recurse=False)
        block.unshard()
    try:
        yield
    finally:
        for block in blocks:
            block.set_reshard_after_forward(block is not outermost, recurse=False)
            block.reshard()


def _blocks(model: nn.Module) -> list[FSDPModule]:
    """What is put into shards by itself; nothing where each process holds a copy."""
    return [module for module in model.modules() if isinstance(module, FSDPModule)]
