"""How weights, gradients and states are divided over devices, and the buffers by which they travel."""

import math
from dataclasses import dataclass

from ftk.memory.architecture import Architecture
from ftk.memory.setup import Setup


@dataclass(frozen=True, slots=True)
class Shares:
    """Parts of the whole that one device holds."""

    weights: float
    gradients: float
    optimizer: float
    gathers: bool
    """Whether a layer's weights are put together before they are used."""
    on_host: bool = False
    """Whether the parts lie in the machine's memory instead of the device's."""


def shares(setup: Setup) -> Shares:
    """What one device holds.

    Source: Rajbhandari et al. 2020 (arXiv:1910.02054), section 5: stage 1 divides the optimizer's states, stage 2 the
    gradients too, stage 3 the weights too, which is what FSDP does (Zhao et al. 2023, arXiv:2304.11277).
    """
    part = 1 / setup.processes
    match setup.strategy if setup.processes > 1 else "ddp":
        case "ddp":
            return Shares(1, 1, 1, gathers=False)
        case "zero1":
            return Shares(1, 1, part, gathers=False)
        case "zero2":
            return Shares(1, part, part, gathers=False)
        case "fsdp_offload":
            # A CPU's shards lie in the machine's memory as it is.
            return Shares(part, part, part, gathers=True, on_host=setup.device == "cuda")
        case _:
            return Shares(part, part, part, gathers=True)


def buffer_bytes(architecture: Architecture, setup: Setup) -> int:
    """Bytes that are whole on each device only while they are needed.

    Derivation for weights in parts, from `fully_shard` of torch 2.13: the outermost group (embedding, head, last norm)
    stays whole from its first use to its last; of the layers, the one at work and the one that is fetched ahead are.
    In the backward pass a layer's gradients are whole in float32 until they are summed and divided, and those of the
    layer before are on their way meanwhile. Where parts lie in the machine's memory, that of the layer that is fetched
    comes to the device first, and those of the summed gradients of two leave from there. DDP needs none: gradients are
    views into its buckets and are summed there. Stage 2 sums a layer's gradients at a time.
    """
    if setup.processes == 1 or setup.strategy in ("ddp", "zero1"):
        return 0
    layer = sum(one.num_parameters for one in architecture.linears()) + sum(architecture.layer_vectors)
    layer += sum(one.num_weights for one in architecture.fused()) + architecture.router_weights
    trains_all = setup.adapter is None
    gradients = 2 * 4 * layer if trains_all else 0
    if setup.strategy == "zero2":
        return gradients
    outer = architecture.vocabulary * architecture.hidden * (1 if architecture.tied else 2)
    passing = 0
    if shares(setup).on_host:
        passing = math.ceil((setup.frozen_bytes * layer + gradients) / setup.processes)
    return setup.frozen_bytes * (outer + 2 * layer) + gradients + passing
