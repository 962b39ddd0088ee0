"""GPUs that one can rent or buy, and what each gives.

Memory is what CUDA says is there, which is less than the size by which a GPU is sold: the lower one where drivers
differ. Source: what torch tells of "total capacity" where memory was exhausted, in published reports of the same GPU.
Operations are dense 16-bit matrix products with float32 sums, without sparsity. Source: the makers' data sheets.
"""

import difflib
import re
from dataclasses import dataclass

from ftk.core.errors import RecipeError

CONTEXT_BYTES = 500_000_000
"""What CUDA's context and the kernels of its libraries take of a GPU before the first tensor.

Taken from nvidia-smi of idle processes on A100 and H100, which show 0.4 to 0.6 GB; it is outside torch's allocator."""

CUDA_BLOCK = 512
"""Bytes to which torch's CUDA allocator rounds. Source: `kMinBlockSize`, c10/cuda/CUDACachingAllocator.cpp."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """One kind of GPU."""

    name: str
    memory_bytes: int
    """What CUDA reports as the device's total."""
    tflops: float
    """Dense bf16 (fp16 before Ampere) products, 1e12 operations a second."""


def _gpu(name: str, gib: float, tflops: float) -> Gpu:
    return Gpu(name, round(gib * 2**30), tflops)


GPUS: tuple[Gpu, ...] = (
    _gpu("RTX 4070", 11.6, 58),
    _gpu("RTX 3060", 11.7, 25.5),
    _gpu("T4", 14.56, 65),
    _gpu("RTX 4080", 15.56, 97),
    _gpu("V100 16GB", 15.77, 125),
    _gpu("A10", 22.0, 125),
    _gpu("L4", 22.03, 121),
    _gpu("RTX 4090", 23.52, 165),
    _gpu("RTX 3090", 23.57, 71),
    _gpu("RTX 5090", 31.36, 209),
    _gpu("V100 32GB", 31.73, 125),
    _gpu("A100 40GB", 39.38, 312),
    _gpu("A40", 44.34, 149),
    _gpu("L40S", 44.39, 362),
    _gpu("RTX A6000", 47.4, 154),
    _gpu("RTX 6000 Ada", 47.4, 364),
    _gpu("H100 80GB", 79.11, 989),
    _gpu("A100 80GB", 79.14, 312),
    _gpu("H100 NVL", 93.0, 835),
    _gpu("RTX PRO 6000", 94.96, 503),
    _gpu("H200", 139.72, 989),
    _gpu("B200", 178.35, 2250),
    _gpu("MI300X", 191.69, 1307),
)
"""In order of memory. T4, L4, A10, A40 and L40S keep a part of theirs for error correction."""


def find_gpu(name: str, *, place: str = "--gpu") -> Gpu:
    """The GPU of that name, in any case of letters; without its size, or the beginning of it, where only one has it.

    Raises:
        RecipeError: it is not in the list, or stands for several; tells the nearest.
    """
    by_name = {_plain(gpu.name): gpu for gpu in GPUS}
    asked = _plain(name)
    meant = [gpu for gpu in GPUS if _plain(re.sub(r" \d+GB$", "", gpu.name)) == asked]
    meant = meant or [gpu for plain, gpu in by_name.items() if asked and plain.startswith(asked)]
    found = by_name.get(asked) or (meant[0] if len(meant) == 1 else None)
    if found is None and meant:
        several = ", ".join(gpu.name for gpu in meant)
        raise RecipeError(f"{name} may be any of {several}. Say which", place=place)
    if found is None:
        near = difflib.get_close_matches(asked, by_name, n=1, cutoff=0.5)
        hint = f" Did you mean {by_name[near[0]].name}?" if near else ""
        known = ", ".join(gpu.name for gpu in GPUS)
        raise RecipeError(f"{name} is no GPU of the list.{hint} It has {known}; or say its memory: 24GB", place=place)
    return found


def _plain(name: str) -> str:
    words = name.lower().replace("nvidia", "").replace("geforce", "").replace("-", " ").split()
    return "".join(words)


def fitting(num_bytes: int) -> list[Gpu]:
    """The GPUs of the list with that much memory, the smallest first."""
    return [gpu for gpu in sorted(GPUS, key=lambda gpu: gpu.memory_bytes) if gpu.memory_bytes >= num_bytes]
