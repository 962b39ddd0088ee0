"""Autocast as it is seen on CUDA, while a step is imagined on a CPU."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def gpu_autocast() -> Iterator[None]:
    """Within, who asks whether autocast is on without naming a device hears of the CPU's, in place of CUDA's.

    PEFT asks so beside quantized weights, and casts inputs by itself where it hears of none (`tuners/lora/bnb.py`).
    """
    own = torch.is_autocast_enabled

    def is_enabled(device_type: str = "cpu") -> bool:
        return own(device_type)

    torch.is_autocast_enabled = is_enabled
    try:
        yield
    finally:
        torch.is_autocast_enabled = own
