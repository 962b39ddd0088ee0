"""`ftk` in a process of its own, and what several test modules know of its runs."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

Ftk = Callable[..., dict[str, Any]]
NUM_ROWS = 12
"""Rows of `rows_file`: three steps of four an epoch."""


def start_ftk(*words: str | Path, **environment: str) -> "subprocess.Popen[str]":
    """`ftk ...` in a process of its own, one thread, offline."""
    return subprocess.Popen(
        [sys.executable, "-m", "ftk", *map(str, words)],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
