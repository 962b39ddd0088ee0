"""The most memory that a run has held."""

import resource
import sys
from pathlib import Path

import torch


def peak_memory_bytes(device: torch.device) -> int:
    """Peak bytes: what torch had allocated on a GPU; on a CPU the resident set of the whole process since it began.

    On a CPU there is no count of tensors alone, so Python, libraries and loaded data are in it.
    """
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts kibibytes, macOS bytes.
    return peak if sys.platform == "darwin" else peak * 1024


def held_bytes(device: torch.device) -> int:
    """Bytes that are held now, of the same kind as the peak; where the system does not say, the peak so far."""
    if device.type == "cuda":
        return int(torch.cuda.memory_allocated(device))
    statm = Path("/proc/self/statm")
    if not statm.is_file():
        return peak_memory_bytes(device)
    return int(statm.read_text().split()[1]) * resource.getpagesize()
