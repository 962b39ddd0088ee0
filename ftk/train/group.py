"""The group of processes that a run belongs to: joined where a launcher or scheduler has made one, else one process."""

import os
import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

import torch

from ftk.train.precision import resolve_precision
from ftk.train.settings import Strategy

if TYPE_CHECKING:
    from accelerate import Accelerator

SLURM_PORT = 29500
"""First of the thousand ports among which a Slurm job takes the one that its number gives."""


def join_group(precision: Literal["auto", "fp32", "bf16", "fp16"], *, strategy: Strategy = "ddp") -> "Accelerator":
    """The devices and processes of this run, as Accelerate sees them, with threads shared out.

    Under ftk's own launcher, torchrun, `accelerate launch` or Slurm the group that is found is joined.

    Args:
        precision: in which the device computes.
        strategy: how the model will be spread, for which the group must speak.

    Raises:
        SetupError: the device cannot compute in `precision`.
    """
    from accelerate import Accelerator
    from accelerate.utils import AutocastKwargs, InitProcessGroupKwargs

    adopt_slurm()
    share_threads(num_local_processes())
    device = best_device()
    resolved = resolve_precision(precision, device)
    return Accelerator(
        mixed_precision="no" if resolved == "fp32" else resolved,
        cpu=device.type == "cpu",
        # The others wait while the first process saves a large model or writes an evaluation.
        kwargs_handlers=[
            InitProcessGroupKwargs(timeout=timedelta(hours=2), **group_backend(strategy, device)),
            AutocastKwargs(cache_enabled=keeps_casts(strategy)),
        ],
    )


def keeps_casts(strategy: Strategy) -> bool:
    """Whether autocast keeps its 16-bit copies of trained weights to the end of a forward pass.

    For whole weights that spares casts. Beside shards the copies would be all weights in 16 bits on every device, and
    activation checkpointing could not let go of them; each weight is used once in a pass anyway, the head's apart.
    """
    return strategy == "ddp" or int(os.environ.get("WORLD_SIZE", "1")) == 1


def group_backend(strategy: Strategy, device: torch.device) -> dict[str, Any]:
    """What Accelerate is told of the backend; nothing where its own choice by the device is right.

    Offloaded shards are gathered, and the norm of their gradients is summed, as tensors of the CPU, which NCCL does not
    know: gloo does that beside it. Accelerate 1.15 passes the name on (`PartialState._prepare_backend`), but for one
    process on its own, where it would take it for a group.
    """
    # By the same variable Accelerate knows that there is a group.
    offloads = strategy == "fsdp_offload" and device.type == "cuda" and "LOCAL_RANK" in os.environ
    return {"backend": "cpu:gloo,cuda:nccl"} if offloads else {}


def best_device() -> torch.device:
    """The accelerator that computes all that ftk does, else the CPU. Apple's has no float64, in which sums are kept."""
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if found is None or found.type == "mps":
        return torch.device("cpu")
    return torch.device(found.type, torch.accelerator.current_device_index())


def leave_group(accelerator: "Accelerator") -> None:
    """Leave the group once all are there: whoever still waits for a process that is gone would wait for ever."""
    if accelerator.num_processes > 1:
        accelerator.wait_for_everyone()
        torch.distributed.destroy_process_group()


def num_local_processes() -> int:
    """Processes of the group on this machine, as the launcher says."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def is_in_group() -> bool:
    """Whether a launcher or scheduler has already made this process one of several."""
    return "RANK" in os.environ or _slurm_tasks() > 1


def share_threads(local_processes: int) -> int:
    """Share the machine's cores among the processes on it, unless OMP_NUM_THREADS says how many; the number taken."""
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(threads_per_process(local_processes))
        # Accelerate warns where it has to guess.
        os.environ["OMP_NUM_THREADS"] = str(torch.get_num_threads())
    return torch.get_num_threads()


def threads_per_process(local_processes: int) -> int:
    """Threads for each of several processes on this machine, at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(torch.get_num_threads(), cores) // local_processes)


def adopt_slurm() -> None:
    """Where `srun` started this process among several, say so in the variables that torch reads."""
    if "RANK" in os.environ or _slurm_tasks() <= 1:
        return
    env = os.environ
    nodes = env.get("SLURM_STEP_NODELIST") or env["SLURM_NODELIST"]
    env["RANK"] = env["SLURM_PROCID"]
    env["WORLD_SIZE"] = env["SLURM_NTASKS"]
    env["LOCAL_RANK"] = env["SLURM_LOCALID"]
    env["LOCAL_WORLD_SIZE"] = re.split(r"\D", env.get("SLURM_TASKS_PER_NODE", "1"), maxsplit=1)[0]
    env.setdefault("MASTER_ADDR", first_host(nodes))
    env.setdefault("MASTER_PORT", str(SLURM_PORT + int(env["SLURM_JOB_ID"]) % 1000))


def first_host(nodes: str) -> str:
    """The first host of a Slurm node list: `gpu[03-05,9],cpu1` begins with `gpu03`."""
    match = re.match(r"([^,\[]+)(?:\[([^\],-]+)[^\]]*\]([^,]*))?", nodes)
    if match is None:
        return nodes
    return match[1] + (match[2] or "") + (match[3] or "")


def _slurm_tasks() -> int:
    # A batch script itself has SLURM_NTASKS, but only what `srun` starts is a task with a step.
    return int(os.environ.get("SLURM_NTASKS", "1")) if "SLURM_STEP_ID" in os.environ else 1
