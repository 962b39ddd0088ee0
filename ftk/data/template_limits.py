"""Bounds on a chat template, a program of someone else's: how long it may run, and how much memory it may take.

Its sandbox (jinja2's, as transformers sets it up) keeps it from files, modules and the attributes of Python's objects,
but not from a loop without end or a text of many gigabytes.
"""

import resource
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType, TracebackType

SECONDS = 10.0
"""Of the processor, for one rendering; an ordinary one takes a ten-thousandth of a second."""
MORE_BYTES = 1 << 30
"""What a rendering may take beyond what the process has already."""
_MEASURE_EVERY_SECONDS = 1.0


class TooLong(Exception):
    """The template did not come to an end."""

    def __init__(self) -> None:
        super().__init__(f"it runs for more than {SECONDS:g} s, as a loop without end does")


class TemplateLimits:
    """Holds what runs within to the bounds, as a context manager; within another, the time begins anew.

    Around many renderings it costs each of them next to nothing, alone a tenth of its time.

    Time is watched where signals reach: in the main thread of a process, which is where rows are rendered. Memory is
    bounded where the system has `RLIMIT_DATA` for all private memory, as Linux does.
    """

    def __init__(self) -> None:
        self._depth = 0
        self._measured = -_MEASURE_EVERY_SECONDS
        self._soft = resource.RLIM_INFINITY
        self._before: tuple[int, int] = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        self._handler: Callable[[int, FrameType | None], object] | int = signal.SIG_DFL
        self._is_main = False

    def __enter__(self) -> None:
        self._depth += 1
        if self._depth == 1:
            self._begin()
        if self._is_main:
            # Again and again: a template cannot catch it, but what it calls may swallow one.
            signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS, 1.0)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._is_main:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        self._depth -= 1
        if self._depth == 0:
            self._end()

    def _begin(self) -> None:
        self._before = resource.getrlimit(resource.RLIMIT_DATA)
        bound = self._bound()
        if bound is not None:
            resource.setrlimit(resource.RLIMIT_DATA, (bound, self._before[1]))
        self._is_main = threading.current_thread() is threading.main_thread()
        if self._is_main:
            # None stands for a handler that Python did not install, and cannot be put back.
            self._handler = signal.signal(signal.SIGVTALRM, _too_long) or signal.SIG_DFL

    def _end(self) -> None:
        if self._is_main:
            signal.signal(signal.SIGVTALRM, self._handler)
        resource.setrlimit(resource.RLIMIT_DATA, self._before)

    def _bound(self) -> int | None:
        """The bound on private memory; None where a lower one holds, or what is taken cannot be told."""
        now = time.monotonic()
        if now - self._measured >= _MEASURE_EVERY_SECONDS:
            # Reading it takes as long as a rendering, so not each time.
            self._measured = now
            taken = _private_bytes()
            self._soft = resource.RLIM_INFINITY if taken is None else taken + MORE_BYTES
        lower = min((one for one in self._before if one != resource.RLIM_INFINITY), default=None)
        if self._soft == resource.RLIM_INFINITY or (lower is not None and lower <= self._soft):
            return None
        return self._soft


def _private_bytes() -> int | None:
    """Memory that counts for `RLIMIT_DATA`."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmData:"))
    except (OSError, StopIteration, ValueError, IndexError):
        return None


def _too_long(signum: int, frame: FrameType | None) -> None:
    raise TooLong
