"""What a run stood on: versions, the machine and its devices. Kept in the run folder, and printed by `ftk env`."""

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import ftk

PACKAGES = (
    "torch",
    "transformers",
    "peft",
    "bitsandbytes",
    "datasets",
    "accelerate",
    "safetensors",
    "tokenizers",
    "pydantic",
    "numpy",
    "triton",
    "flash-attn",
)
"""Those whose version can change a result or a speed."""


def environment() -> dict[str, Any]:
    """Versions, git revision, machine and devices, as JSON values. No names of users or hosts, no secrets."""
    return {
        "ftk": ftk.__version__,
        "git_revision": git_revision(Path(ftk.__file__).parent),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": packages(),
        "num_cpus": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
        "num_threads": torch.get_num_threads(),
        "memory_bytes": _memory_bytes(),
        "devices": devices(),
    }


def packages() -> dict[str, str]:
    """Versions of the installed ones among `PACKAGES`."""
    return {name: version for name in PACKAGES if (version := _version(name)) is not None}


def git_revision(folder: Path) -> str | None:
    """The commit that a package's folder is checked out at, `+changes` where files differ from it.

    None where the package is installed, even if that is within somebody's repository.
    """
    is_tracked = _git(folder, "ls-files", "--error-unmatch", "__init__.py") is not None
    commit = _git(folder, "rev-parse", "HEAD") if is_tracked else None
    if commit is None:
        return None
    # Untracked files are left out: run folders and data lie in checkouts too.
    return f"{commit}+changes" if _git(folder, "status", "--porcelain", "--untracked-files=no") else commit


def devices() -> list[dict[str, Any]]:
    """The accelerators that torch sees, in its order; empty on a machine with a CPU alone."""
    if torch.cuda.is_available():
        kind = f"ROCm {torch.version.hip}" if torch.version.hip else f"CUDA {torch.version.cuda}"
        return [_cuda_device(index, kind) for index in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        return [{"name": "Apple GPU", "kind": "mps", "memory_bytes": torch.mps.recommended_max_memory()}]
    if torch.xpu.is_available():
        properties = [torch.xpu.get_device_properties(index) for index in range(torch.xpu.device_count())]
        return [{"name": one.name, "kind": "xpu", "memory_bytes": one.total_memory} for one in properties]
    return []


def _cuda_device(index: int, kind: str) -> dict[str, Any]:
    properties = torch.cuda.get_device_properties(index)
    return {
        "name": properties.name,
        "kind": kind,
        "capability": f"{properties.major}.{properties.minor}",
        "memory_bytes": properties.total_memory,
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _memory_bytes() -> int | None:
    """The machine's memory, or the container's share of it; None where the system does not say."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None
    limit = Path("/sys/fs/cgroup/memory.max")
    allowed = limit.read_text().strip() if limit.is_file() else "max"
    return min(total, int(allowed)) if allowed.isdecimal() else total


def _git(folder: Path, *words: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=10)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
