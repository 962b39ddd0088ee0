"""The longest micro-batch is rehearsed before the first step, so that what runs out of memory does so at once."""

import gc
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from ftk.core.errors import RunError
from ftk.core.types import Batch
from ftk.train import random_state
from ftk.train.shard import local

if TYPE_CHECKING:
    from accelerate import Accelerator

StateBytes = Callable[[int], int]
"""Bytes that an optimizer keeps for a trained tensor of so many weights."""
CPU_TOKENS = 1024
"""Tokens of a micro-batch on a CPU. Larger ones outgrow its caches and hold more padding: rows of 100 to 860 tokens in
batches of 8 take 1.7 times the computation if all run at once, 1.06 times so."""
REMEDIES = (
    "Lower training.micro_batch_size (it does not change the result) or data.max_length, or set "
    "training.activation_checkpointing: true, tuning: lora, or quantization: nf4"
)


def rehearse(
    run: Callable[[Batch], None],
    batch: Batch,
    *,
    optimizer: torch.optim.Optimizer,
    state_bytes: StateBytes,
    accelerator: "Accelerator",
) -> None:
    """One forward and backward of `batch` by `run`, with room taken for the optimizer's states; nothing is updated.

    Gradients are cleared and the random generators put back, so training goes on as if nothing had been.

    Raises:
        RunError: the memory does not suffice; it says what to lower.
    """
    if not fits(run, batch, optimizer=optimizer, state_bytes=state_bytes):
        rows, length = batch.input_ids_BL.shape
        raise RunError(
            f"out of memory in a rehearsal of the longest micro-batch: {rows} rows of {length} tokens"
            f"{_memory_of(accelerator.device)}. {REMEDIES}"
        )


def fits(
    run: Callable[[Batch], None], batch: Batch, *, optimizer: torch.optim.Optimizer, state_bytes: StateBytes
) -> bool:
    """Whether one forward and backward of `batch`, and the optimizer's states beside it, fit into memory."""
    room: list[torch.Tensor] = []
    try:
        with random_state.kept():
            room = _room_for_states(optimizer, state_bytes)
            run(batch)
        return True
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        # The traceback holds on to the tensors of the failed pass, and autograd's graph has cycles.
        error.__traceback__ = None
        gc.collect()
        return False
    finally:
        room.clear()
        optimizer.zero_grad(set_to_none=True)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether torch failed for want of memory; on a CPU it says so in words alone."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def find_micro_batch_tokens(
    run: Callable[[Batch], None],
    worst_batch: Callable[[int], Batch],
    *,
    optimizer: torch.optim.Optimizer,
    state_bytes: StateBytes,
    accelerator: "Accelerator",
    rows_per_step: int,
    longest_row: int,
) -> int:
    """Tokens a forward pass, padding included: what fits on an accelerator, by trying; on a CPU what runs fastest.

    Tokens, and not rows: short rows then go together in greater number. All processes get the same number.

    Args:
        worst_batch: gives the n rows that need most memory.
        state_bytes: what the optimizer keeps for a tensor of so many weights.
        rows_per_step: rows that one process has in a step.
        longest_row: tokens of the longest row.

    Raises:
        RunError: not even one row fits.
    """
    if accelerator.device.type == "cpu":
        return CPU_TOKENS
    size = 1
    states: dict[str, Any] = {"optimizer": optimizer, "state_bytes": state_bytes}
    if not _fits_everywhere(run, worst_batch(1), accelerator, **states):
        rehearse(run, worst_batch(1), accelerator=accelerator, **states)
        raise RunError(f"out of memory with one row on another process. {REMEDIES}")
    while size < rows_per_step and _fits_everywhere(
        run, worst_batch(min(2 * size, rows_per_step)), accelerator, **states
    ):
        size = min(2 * size, rows_per_step)
    return size * longest_row


def _fits_everywhere(run: Callable[[Batch], None], batch: Batch, accelerator: "Accelerator", **states: Any) -> bool:
    failed = torch.tensor(float(not fits(run, batch, **states)), device=accelerator.device)
    return float(accelerator.reduce(failed, "sum")) == 0.0


def _room_for_states(optimizer: torch.optim.Optimizer, state_bytes: StateBytes) -> list[torch.Tensor]:
    """As much memory as the optimizer will take at its first step; none where it has its states already."""
    held = [
        local(parameter.detach())
        for group in optimizer.param_groups
        for parameter in group["params"]
        if parameter not in optimizer.state
    ]
    return [torch.empty(state_bytes(one.numel()), dtype=torch.uint8, device=one.device) for one in held]


def _memory_of(device: torch.device) -> str:
    if device.type != "cuda":
        return ""
    free, total = torch.cuda.mem_get_info(device)
    return f", with {total / 2**30:.0f} GiB on {torch.cuda.get_device_name(device)}, {free / 2**30:.0f} of them free"
