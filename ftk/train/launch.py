"""Several processes on this machine: the same command once for each, with the variables that make them a group."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Literal

import torch

from ftk.core.errors import ExitCode, RunError, SetupError
from ftk.train.group import is_in_group, threads_per_process

GRACE_SECONDS = 30.0
"""How long the others may take to end by themselves after one has failed."""
STOP_GRACE_SECONDS = 600.0
"""The same after one has stopped in good order, which all do together: the slowest may still be letting go of much."""
_SPOKEN = frozenset(ExitCode) - {ExitCode.DONE, ExitCode.DEFECT}
TAIL_LINES = 20
"""Lines of a silent process's errors that are shown when it fails."""


def processes_to_start(processes: int | Literal["auto"]) -> int:
    """How many processes this one should start; 1 where it is to do the work itself.

    `auto` is the number of visible GPUs, else 1. In a group that someone else has made, nothing is started.

    Raises:
        SetupError: more processes than GPUs are asked for on a machine that has GPUs.
    """
    if is_in_group():
        return 1
    num_gpus = torch.cuda.device_count()
    if processes == "auto":
        return max(1, num_gpus)
    if num_gpus and processes > num_gpus:
        raise SetupError(
            f"parallel.processes: {processes} processes need as many GPUs, and {num_gpus} can be seen. "
            "Set CUDA_VISIBLE_DEVICES='' to use processes on the CPU"
        )
    return processes


def this_command() -> list[str]:
    """The command line of this process, to be run again."""
    return [sys.executable, *sys.orig_argv[1:]]


def launch(command: Sequence[str], *, processes: int) -> int:
    """Run `command` once for each process of a group on this machine, and wait for all; the exit code of the group.

    The first process speaks on this one's streams; the others are silent. SIGINT and SIGTERM are passed on. When one
    fails, all end.

    Raises:
        RunError: a process that cannot be heard failed in another way than the first one.
    """
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="ftk-launch-") as folder:
        errors = [Path(folder, f"{rank}.stderr") for rank in range(processes)]
        children = [
            _start(command, rank=rank, processes=processes, port=port, errors=path) for rank, path in enumerate(errors)
        ]
        try:
            with _passing_on_signals(children):
                first_failed = _wait(children)
        finally:
            _end(children)
        if first_failed is None:
            return 0
        code, first_code = _exit_code(children[first_failed]), _exit_code(children[0])
        # The first process has spoken where its code is that of a message; the others may only have lost it by then.
        if first_failed == 0 or code == first_code or first_code in _SPOKEN:
            return first_code
        raise RunError(f"process {first_failed} ended with exit code {code}:\n{_tail(errors[first_failed])}")


def run_again(command: Sequence[str], variables: Mapping[str, str]) -> int:
    """Run `command` in one process with further environment variables, and wait for it; its exit code.

    It speaks on this one's streams. SIGINT and SIGTERM are passed on.
    """
    # A session of its own: Ctrl-C in a terminal would otherwise reach it twice, from there and from here.
    child = subprocess.Popen(command, env={**os.environ, **variables}, start_new_session=True)
    try:
        with _passing_on_signals([child]):
            child.wait()
    finally:
        _end([child])
    return _exit_code(child)


def free_port() -> int:
    """A TCP port that nobody listens on at present."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _start(command: Sequence[str], *, rank: int, processes: int, port: int, errors: Path) -> subprocess.Popen[bytes]:
    environment = {
        "OMP_NUM_THREADS": str(threads_per_process(processes)),
        **os.environ,
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    # A session of its own: Ctrl-C in a terminal would otherwise reach it twice, from there and from here.
    if rank == 0:
        return subprocess.Popen(command, env=environment, start_new_session=True)
    with errors.open("wb") as file:
        return subprocess.Popen(
            command,
            env=environment,
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=file,
        )


def _wait(children: Sequence[subprocess.Popen[bytes]]) -> int | None:
    """Wait until all have ended, or one has failed and the others had time; the rank of the first that failed."""
    while True:
        codes = [child.poll() for child in children]
        failed = [rank for rank, code in enumerate(codes) if code]
        if failed:
            in_order = codes[failed[0]] in (ExitCode.STOPPED, ExitCode.INTERRUPTED)
            _wait_for(children, STOP_GRACE_SECONDS if in_order else GRACE_SECONDS)
            return failed[0]
        if all(code == 0 for code in codes):
            return None
        time.sleep(0.05)


def _wait_for(children: Sequence[subprocess.Popen[bytes]], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and any(child.poll() is None for child in children):
        time.sleep(0.02)


def _end(children: Sequence[subprocess.Popen[bytes]]) -> None:
    for child in children:
        if child.poll() is None:
            child.kill()
        child.wait()


def _exit_code(child: subprocess.Popen[bytes]) -> int:
    """As a shell tells it: 128 and the signal's number for a process that a signal ended."""
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


@contextmanager
def _passing_on_signals(children: Sequence[subprocess.Popen[bytes]]) -> Iterator[None]:
    def pass_on(number: int, frame: FrameType | None) -> None:
        for child in children:
            child.send_signal(number)

    previous = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _tail(errors: Path) -> str:
    return "\n".join(errors.read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL_LINES:])
