"""What an estimate says: bytes by kind, as every depth of estimation answers them."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from ftk.memory.rollout import Rollout

Method = Literal["rule_of_thumb", "analytic", "simulated"]
"""How an answer was found: by a formula of thumb, summed from the shapes, or by following every allocation."""


@dataclass(frozen=True, slots=True)
class MemoryBytes:
    """Bytes that one device holds at the moment of a training step when it holds the most."""

    weights: int
    """The model's weights as they are stored, quantization constants and buffers with them."""
    adapter: int
    """Weights that tuning added."""
    gradients: int
    optimizer: int
    """States of the optimizer."""
    activations: int
    """What the forward pass keeps for the backward pass, and what either needs for the while."""
    logits: int
    """The output head: its chunks of logits, and what it keeps for the backward pass."""
    overhead: int
    """Communication buffers, workspaces, and what the allocator and the process take beside tensors."""

    @property
    def total(self) -> int:
        """All kinds together."""
        return sum(getattr(self, kind.name) for kind in fields(self))

    def as_json(self) -> dict[str, int]:
        """`weights_bytes`, `adapter_bytes` and so on, with `total_bytes`."""
        return {f"{kind.name}_bytes": getattr(self, kind.name) for kind in fields(self)} | {"total_bytes": self.total}


@dataclass(frozen=True, slots=True)
class Inference:
    """Bytes to generate with the model."""

    weights: int
    kv_cache: int | None
    """Keys and values of all rows at full length; None where a bare number of parameters does not tell them."""
    total: int
    """Both, and what one step of decoding needs for the while."""

    def as_json(self) -> dict[str, int | None]:
        """`weights_bytes`, `kv_cache_bytes`, `total_bytes`."""
        return {"weights_bytes": self.weights, "kv_cache_bytes": self.kv_cache, "total_bytes": self.total}


@dataclass(frozen=True, slots=True)
class PerDevice:
    """What each device of a group holds."""

    processes: int
    strategy: str
    """`ddp`, `zero1`, `zero2`, `zero3`, `fsdp` or `fsdp_offload`; without meaning for one process."""
    bytes: MemoryBytes
    host: int = 0
    """Bytes of the machine's own memory for each device, where states are offloaded."""

    def as_json(self) -> dict[str, Any]:
        """Bytes by kind, and how many devices hold so much."""
        where = {"processes": self.processes, "strategy": self.strategy, "host_bytes": self.host}
        return where | self.bytes.as_json()


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a run will take."""

    parameters: int
    """Weights of the model, those of an adapter included."""
    trainable_parameters: int
    active_parameters: int
    """Weights that take part for one token; fewer than all in a mixture of experts."""
    inference: Inference
    training: MemoryBytes
    """On one device that holds everything."""
    per_device: PerDevice
    """On each device of the group that the run is spread over; the same as `training` for one process."""
    rule_of_thumb: Mapping[str, Any]
    """The same questions answered by the customary formulas, which are shown with them."""
    method: Method
    peak_moment: str
    """When in the step the peak comes, in words."""
    activations: Mapping[str, int]
    """Of the activations on each device, by the part of the model that made them."""
    work: Mapping[str, Any]
    """Operations, and time and price at a stated pace: an estimate."""
    gpus: tuple[Mapping[str, Any], ...]
    """GPUs of the built-in list that hold what each device holds, with the room that is left; the smallest first."""
    rollout: "Rollout | None" = None
    """Answers drawn between steps; None where none were asked about."""
    notes: tuple[str, ...] = ()
    """What the reader should know of how the figures came about."""

    def as_json(self) -> dict[str, Any]:
        """As `ftk estimate-memory --json` prints it."""
        return {
            "parameters": self.parameters,
            "trainable_parameters": self.trainable_parameters,
            "active_parameters": self.active_parameters,
            "inference": self.inference.as_json(),
            "training": self.training.as_json(),
            "rollout": self.rollout.as_json() if self.rollout is not None else None,
            "per_device": self.per_device.as_json(),
            "rule_of_thumb": dict(self.rule_of_thumb),
            "method": self.method,
            "peak_moment": self.peak_moment,
            "activations": {f"{part}_bytes": num_bytes for part, num_bytes in self.activations.items()},
            "work": dict(self.work),
            "gpus": [dict(gpu) for gpu in self.gpus],
            "notes": list(self.notes),
        }
