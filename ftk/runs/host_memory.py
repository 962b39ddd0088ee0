"""The machine's own memory, where offloaded shards lie, and where a model begins that a GPU does not hold whole."""

from dataclasses import dataclass

import torch

from ftk.memory.estimate import Estimate
from ftk.memory.units import shown
from ftk.runs.advising.memory_size import free_bytes
from ftk.train.group import num_local_processes


@dataclass(frozen=True, slots=True)
class HostMemory:
    """What the processes of this machine need of its memory together."""

    needed: int
    num_processes: int
    """Of this machine."""
    free: int | None
    """None where the system does not say."""

    @property
    def lacks(self) -> bool:
        """Whether it cannot be: weights, gradients and states are counted exactly."""
        return self.free is not None and self.needed > self.free

    def line(self) -> str:
        """What is said before the model is loaded."""
        free = "what is free is not known" if self.free is None else f"{shown(self.free)} free"
        return f"memory of this machine {shown(self.needed)} expected for {self.num_processes} processes, {free}"

    def refusal(self) -> str:
        """Why the run cannot be, and what to do."""
        assert self.free is not None
        return (
            f"the run cannot fit: its {self.num_processes} processes need {shown(self.needed)} of this machine's "
            f"memory, and {shown(self.free)} are free. Take tuning: lora, a smaller model, or more machines"
        )


def host_memory(answer: Estimate, device: torch.device, *, fits_whole: bool) -> HostMemory | None:
    """What shards on the CPU take, or at the start the whole model in each process; None where neither lies there."""
    each = answer.per_device
    if device.type == "cpu" or each.processes == 1 or each.strategy == "ddp":
        return None
    whole = 0 if fits_whole else answer.training.weights + answer.training.adapter
    needed = max(each.host, whole)
    if not needed:
        return None
    num = num_local_processes()
    return HostMemory(num * needed, num, free_bytes(torch.device("cpu")))
