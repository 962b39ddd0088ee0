"""A signal is heard also where Python ignores what is raised."""

import signal
import time
import weakref
from collections.abc import Callable, Iterator

import pytest

from ftk.core.signals import raising


@pytest.fixture(autouse=True)
def ctrl_c() -> Iterator[None]:
    previous = [(number, signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGALRM)]
    signal.signal(signal.SIGINT, raising(KeyboardInterrupt))
    yield
    for number, handler in previous:
        signal.signal(number, handler)


def in_a_finalizer() -> None:
    class Owner:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)

    Owner()


def as_an_import_lets_go_of_its_lock() -> None:
    class Module:
        pass

    names: dict[str, Callable[[object], None]] = {}
    source = "def cb(reference):\n    signal.raise_signal(signal.SIGINT)\n"
    exec(compile(source, "<frozen importlib._bootstrap>", "exec"), {"signal": signal}, names)
    module = Module()
    watched = weakref.ref(module, names["cb"])
    del module
    assert watched() is None


@pytest.mark.parametrize("struck", [in_a_finalizer, as_an_import_lets_go_of_its_lock])
def test_ctrl_c_where_errors_are_ignored_is_heard_a_moment_later(struck: Callable[[], None]) -> None:
    struck()
    with pytest.raises(KeyboardInterrupt):
        time.sleep(10)


def test_elsewhere_it_is_heard_at_once() -> None:
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
