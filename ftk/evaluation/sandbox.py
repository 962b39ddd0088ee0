"""Programs that are not to be trusted, each run in a process of its own with limits.

Linux only: the network is cut off by a namespace without interfaces, and what a program leaves running dies with its
namespace.
"""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ftk.core.errors import SetupError

MAX_FILE_BYTES = 16_000_000
MAX_PROCESSES = 64
_PASSED = "passed"
_GRACE_SECONDS = 2.0
"""For the process to start and to be killed, beyond what the program itself may take."""
_LAUNCHER = Path(__file__).with_name("sandbox_launcher.py")


@dataclass(frozen=True)
class Limits:
    """What one program may take."""

    seconds: float
    memory_bytes: int
    allow_network: bool = False
    """Run even where the network cannot be cut off."""


def check_protection(limits: Limits) -> None:
    """
    Raises:
        SetupError: programs cannot be run here as `limits` say.
    """
    if sys.platform != "linux":
        raise SetupError("generated programs run under Linux only, where the kernel can keep them from the network")
    if not limits.allow_network and not _can_isolate():
        raise SetupError(
            "this machine does not let ftk make a network namespace, so generated programs would have the network. "
            "Allow user namespaces (sysctl kernel.unprivileged_userns_clone=1, or a container with that right), or say "
            "allow_network: true in the metric where that is no harm"
        )


def run_python(text: str, limits: Limits) -> bool:
    """Whether a Python program runs to its end within its limits without raising or leaving early.

    Raises:
        SetupError: programs cannot be run here as `limits` say.
    """
    check_protection(limits)
    with tempfile.TemporaryDirectory(prefix="ftk-program-", ignore_cleanup_errors=True) as folder:
        program = Path(folder) / "program.py"
        # What a model wrote may not even be text.
        program.write_bytes(text.encode("utf-8", "surrogatepass"))
        return _run(program, limits, isolated=_can_isolate())


def _run(program: Path, limits: Limits, *, isolated: bool) -> bool:
    read, write = os.pipe()
    words = [
        *(sys.executable, "-I", "-S", str(_LAUNCHER), str(program), str(write)),
        *(str(limits.seconds), str(limits.memory_bytes), str(MAX_FILE_BYTES), str(MAX_PROCESSES), str(int(isolated))),
    ]
    try:
        process = subprocess.Popen(
            words,
            cwd=program.parent,
            env={
                "PATH": "/usr/bin:/bin",
                "HOME": str(program.parent),
                "TMPDIR": str(program.parent),
                "LANG": "C.UTF-8",
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(write,),
            start_new_session=True,
        )
        try:
            code = process.wait(timeout=limits.seconds + _GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            # Within a namespace this ends everything; without one, what has not left the session.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    finally:
        os.close(write)
    with os.fdopen(read, "rb") as pipe:
        os.set_blocking(pipe.fileno(), False)
        told = pipe.read() or b""
    return code == 0 and told == _PASSED.encode()


@cache
def _can_isolate() -> bool:
    """Whether a process without a network can be made here; tried once."""
    with tempfile.TemporaryDirectory(prefix="ftk-program-") as folder:
        program = Path(folder) / "program.py"
        program.write_text("")
        return _run(program, Limits(30.0, 2_000_000_000), isolated=True)
