"""A signal is heard also where Python ignores what is raised."""

import signal
import time
import weakref
from collections.abc import Callable, Iterator

import pytest

from ftk.core.errors import Interrupted
from ftk.core.signals import raising
from ftk.train.signals import StopRequest


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


def test_who_handles_the_signal_then_is_told() -> None:
    """A step that has begun meanwhile notes the signal, and is not torn."""
    heard: list[int] = []
    in_a_finalizer()
    signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))
    time.sleep(0.05)
    assert heard == [signal.SIGINT]


def test_an_alarm_of_somebody_else_still_goes_off() -> None:
    rung: list[int] = []
    signal.signal(signal.SIGALRM, lambda number, frame: rung.append(number))
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    in_a_finalizer()
    with pytest.raises(KeyboardInterrupt):
        time.sleep(10)
    assert not rung
    time.sleep(0.2)
    assert rung == [signal.SIGALRM]


def test_a_second_ctrl_c_in_a_finalizer_stops_a_step_at_once() -> None:
    def step() -> None:
        with StopRequest():
            signal.raise_signal(signal.SIGINT)
            in_a_finalizer()
            time.sleep(10)

    with pytest.raises(Interrupted):
        step()


def test_elsewhere_it_is_heard_at_once() -> None:
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
