"""Which rows made a loss that is not finite, and the error that names them."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

from ftk.core.errors import RunError
from ftk.core.types import Batch
from ftk.train.shard import is_sharded, unwrapped

if TYPE_CHECKING:
    from accelerate import Accelerator

MAX_NAMED = 8
"""Rows of one process that a message names at most."""


def nonfinite_rows(
    model: nn.Module, micro_batches: Sequence[Batch], is_finite_M: Sequence[bool], accelerator: "Accelerator"
) -> list[int]:
    """Examples of this process in micro-batches that are not finite, narrowed to single rows where that can be."""
    guilty: list[int] = []
    for batch, is_finite in zip(micro_batches, is_finite_M, strict=True):
        if not is_finite:
            guilty += _rows_of(model, batch, accelerator)
    return guilty


@torch.no_grad()
def _rows_of(model: nn.Module, batch: Batch, accelerator: "Accelerator") -> tuple[int, ...]:
    # Sharded weights need every process in a forward pass, and a packed row holds several examples.
    if is_sharded(model) or batch.packed or len(batch.indices) != len(batch.input_ids_BL):
        return batch.indices
    scores = unwrapped(model)(batch.to(accelerator.device))
    is_finite_B = scores.logps_BL.isfinite().all(dim=1).tolist()
    return tuple(row for row, good in zip(batch.indices, is_finite_B, strict=True) if not good) or batch.indices


def nonfinite_error(
    what: str,
    rows: Sequence[int],
    describe_rows: Callable[[Sequence[int]], str],
    accelerator: "Accelerator",
) -> RunError:
    """The error that stops the run, the same on every process; all of them must call this."""
    named = describe_rows(rows[:MAX_NAMED]) if rows else ""
    rest = f" and {len(rows) - MAX_NAMED} more" if len(rows) > MAX_NAMED else ""
    told = ", ".join(text for text in _from_all(named + rest, accelerator) if text)
    subject = "loss is" if what == "nonfinite loss" else "gradients are"
    return RunError(
        f"the {subject} not finite. The rows of it: {told}. Look at them, lower training.learning_rate, or set "
        "training.on_nonfinite: skip to leave such steps out"
    )


def _from_all(text: str, accelerator: "Accelerator") -> list[str]:
    if accelerator.num_processes == 1:
        return [text]
    texts: list[str] = [""] * accelerator.num_processes
    torch.distributed.all_gather_object(texts, text)
    return texts
