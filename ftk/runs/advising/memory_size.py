"""The memory that something shall fit into: a size, a GPU by its name, or what is there."""

import re
from pathlib import Path

import torch

from ftk.memory.gpus import find_gpu
from ftk.memory.units import parse_bytes

_SIZE = re.compile(r"\s*[\d_.]+\s*[kmgt]i?b?\s*", re.IGNORECASE)
_CGROUP = Path("/sys/fs/cgroup")


def memory_of(text: str, *, place: str) -> int:
    """Bytes of `24GB`, `24GiB`, `80g`, or of a GPU by its name.

    Raises:
        RecipeError: it is neither; tells the nearest GPU.
    """
    return parse_bytes(text, place=place) if _SIZE.fullmatch(text) else find_gpu(text, place=place).memory_bytes


def free_bytes(device: torch.device) -> int | None:
    """What is free on a device: memory that no process holds; None where the system does not say."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        # What this process has taken from the device and given back to torch is free for it as well.
        return int(free) + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return _free_on_the_machine() if device.type == "cpu" else None


def _free_on_the_machine() -> int | None:
    """What Linux can give without swapping, or what is left of the container's share of it."""
    available = _available()
    if available is None:
        return None
    limit = _number(_CGROUP / "memory.max")
    used = _number(_CGROUP / "memory.current")
    if limit is None or used is None:
        return available
    # Files that were read lie in the container's memory until somebody else wants it.
    return min(available, limit - used + _inactive_files())


def _available() -> int | None:
    meminfo = Path("/proc/meminfo")
    if not meminfo.is_file():
        return None
    found = re.search(r"MemAvailable:\s+(\d+) kB", meminfo.read_text())
    return int(found[1]) * 1024 if found else None


def _inactive_files() -> int:
    try:
        found = re.search(r"^inactive_file (\d+)$", (_CGROUP / "memory.stat").read_text(), re.MULTILINE)
    except OSError:
        return 0
    return int(found[1]) if found else 0


def _number(path: Path) -> int | None:
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None
