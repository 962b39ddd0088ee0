"""SIGTERM and SIGINT: the step under way is finished and saved; a second Ctrl-C stops at once."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self

from ftk.core.errors import Interrupted, Stopped
from ftk.core.signals import raising

AT_ONCE = "stopped at once. The same command goes on from the last checkpoint"


class StopRequest:
    """While entered, signals are noted instead of ending the process. Only a main thread can enter it.

    Raises:
        Interrupted: on leaving after a second SIGINT, which stops at once.
    """

    def __init__(self) -> None:
        self._received: list[int] = []
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        if kind is KeyboardInterrupt:
            raise Interrupted(AT_ONCE) from error

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and signal.SIGINT in self._received:
            raising(KeyboardInterrupt)(number, frame)
            return
        self._received.append(number)
        again = "; once more Ctrl-C stops at once" if number == signal.SIGINT else ""
        # The handler may interrupt a write to sys.stderr, and a buffered file refuses to be entered twice.
        os.write(2, f"\nstopping after this step, with a checkpoint{again}\n".encode())

    @property
    def flags(self) -> tuple[float, float]:
        """Whether SIGTERM and SIGINT came, as numbers that processes can add up."""
        return float(signal.SIGTERM in self._received), float(signal.SIGINT in self._received)


@contextmanager
def stopping_at_once() -> Iterator[None]:
    """Around what a run does outside its steps: SIGTERM is an error there, which leaves files whole and is told.

    Raises:
        Stopped: on SIGTERM.
    """

    sentence = "stopped by SIGTERM. The same command goes on from the last checkpoint, if there is one yet"
    previous = signal.signal(signal.SIGTERM, raising(lambda: Stopped(sentence)))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def stop_error(flags: tuple[float, float], *, step: int) -> Stopped | Interrupted | None:
    """The error that ends the run, from the flags of all processes added up; None where nobody asked."""
    terminated, interrupted = flags
    saved = f"a checkpoint of step {step} is saved, and the same command goes on from there"
    if interrupted:
        return Interrupted(f"stopped by Ctrl-C: {saved}")
    return Stopped(f"stopped by SIGTERM: {saved}") if terminated else None
