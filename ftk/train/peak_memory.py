"""The most memory that a run has held."""

import resource
import sys

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
