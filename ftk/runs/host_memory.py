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
    offloads: bool
    """Whether shards lie there, for which torch may take up to twice as much: it pins powers of two."""
    is_whole: bool
    """Whether the whole model in each process is what is needed the most for."""
    tunes_all: bool

    @property
    def lacks(self) -> bool:
        """Whether it cannot be: weights, gradients and states are counted exactly."""
        return self.free is not None and self.needed > self.free

    def line(self) -> str:
        """What is said before the model is loaded."""
        free = "what is free is not known" if self.free is None else f"{shown(self.free)} free"
        least = "at least " if self.offloads else ""
        return f"memory of this machine {least}{shown(self.needed)} expected for {self.num_processes} processes, {free}"

    def refusal(self) -> str:
        """Why the run cannot be, and what to do."""
        assert self.free is not None
        # A shard is larger where processes are fewer, and a whole model is not.
        ways = (["tuning: lora"] if self.tunes_all else []) + (
            ["fewer processes on this machine"] if self.is_whole and self.num_processes > 1 else []
        )
        return (
            f"the run cannot fit: its {self.num_processes} processes need {shown(self.needed)} of this machine's "
            f"memory, and {shown(self.free)} are free. Take {', '.join([*ways, 'a smaller model'])}, or more machines"
        )


def host_memory(answer: Estimate, device: torch.device, *, loads_whole: bool) -> HostMemory | None:
    """What shards on the CPU take, or at the start the whole model in each process; None where neither lies there.

    Args:
        answer: what is expected of the run.
        device: on which it computes.
        loads_whole: whether each process loads the model to the CPU.
    """
    each = answer.per_device
    if device.type == "cpu" or each.processes == 1 or each.strategy == "ddp":
        return None
    whole = answer.training.weights + answer.training.adapter if loads_whole else 0
    needed = max(each.host, whole)
    if not needed:
        return None
    num = num_local_processes()
    return HostMemory(
        num * needed,
        num,
        free_bytes(torch.device("cpu")),
        offloads=each.host > 0,
        is_whole=whole > each.host,
        tunes_all=answer.trainable_parameters == answer.parameters,
    )
