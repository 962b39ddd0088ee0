"""Runs that a signal interrupts at a place that is chosen."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest


@contextmanager
def sigterm_at_call(number: int, owner: object, name: str) -> Iterator[list[int]]:
    """Within, this process gets SIGTERM as `owner.name` is called for the `number`-th time; yields the calls so far."""
    calls: list[int] = []
    original: Any = getattr(owner, name)

    def counted(*arguments: Any, **named: Any) -> Any:
        calls.append(len(calls) + 1)
        if len(calls) == number:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(*arguments, **named)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(owner, name, counted)
        yield calls
