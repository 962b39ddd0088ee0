"""GPUs that one can rent or buy, and what each gives.

Source: the makers' data sheets: memory, and dense 16-bit matrix products with float32 sums, without sparsity.
"""

import difflib
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
    """What CUDA reports as the device's total, near enough: the size by which it is sold, in GiB."""
    tflops: float
    """Dense bf16 (fp16 before Ampere) products, 1e12 operations a second."""


def _gpu(name: str, gib: int, tflops: float) -> Gpu:
    return Gpu(name, gib * 2**30, tflops)


GPUS: tuple[Gpu, ...] = (
    _gpu("T4", 15, 65),
    _gpu("RTX 3060", 12, 25.5),
    _gpu("RTX 4070", 12, 58),
    _gpu("V100 16GB", 16, 125),
    _gpu("RTX 4080", 16, 97),
    _gpu("L4", 22, 121),
    _gpu("A10", 22, 125),
    _gpu("RTX 3090", 24, 71),
    _gpu("RTX 4090", 24, 165),
    _gpu("RTX 5090", 32, 209),
    _gpu("V100 32GB", 32, 125),
    _gpu("A100 40GB", 40, 312),
    _gpu("L40S", 45, 362),
    _gpu("RTX A6000", 48, 155),
    _gpu("RTX 6000 Ada", 48, 364),
    _gpu("A100 80GB", 80, 312),
    _gpu("H100 80GB", 80, 989),
    _gpu("RTX PRO 6000", 96, 503),
    _gpu("H200", 141, 989),
    _gpu("B200", 180, 2250),
    _gpu("MI300X", 192, 1307),
)
"""In order of memory. T4, L4, A10 and L40S keep a part of their memory for error correction."""


def find_gpu(name: str, *, place: str = "--gpu") -> Gpu:
    """The GPU of that name, in any case of letters; the beginning of it is enough where only one has it.

    Raises:
        RecipeError: it is not in the list, or stands for several; tells the nearest.
    """
    by_name = {_plain(gpu.name): gpu for gpu in GPUS}
    meant = [gpu for plain, gpu in by_name.items() if _plain(name) and plain.startswith(_plain(name))]
    found = by_name.get(_plain(name)) or (meant[0] if len(meant) == 1 else None)
    if found is None and meant:
        several = ", ".join(gpu.name for gpu in meant)
        raise RecipeError(f"{name} may be any of {several}. Say which", place=place)
    if found is None:
        near = difflib.get_close_matches(_plain(name), by_name, n=1, cutoff=0.5)
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
