"""Signals that become errors, wherever they strike."""

import signal
from collections.abc import Callable
from types import FrameType

AGAIN_SECONDS = 0.01
Handler = Callable[[int, FrameType | None], None]


def raising(error: Callable[[], BaseException]) -> Handler:
    """A handler that raises `error()` where somebody hears it; in a finalizer it waits until that is over.

    Python tells of a signal as soon as it runs code of its own again. After the loading of a library that may be the
    callback by which an import lets go of its lock, and what is raised there is printed and forgotten: a Ctrl-C in the
    first seconds of a long run was seen to be lost.
    """

    def strike(number: int, frame: FrameType | None) -> None:
        if _is_ignored(frame):
            _send_again(number)
        else:
            raise error()

    return strike


def _is_ignored(frame: FrameType | None) -> bool:
    """Whether Python ignores what is raised in the frame: in a finalizer, or as an import lets go of its lock."""
    while frame is not None:
        code = frame.f_code
        if code.co_name == "__del__" or (code.co_name, code.co_filename) == ("cb", "<frozen importlib._bootstrap>"):
            return True
        frame = frame.f_back
    return False


def _send_again(number: int) -> None:
    """Have the signal come anew in a moment, to whatever handles it then; an alarm that somebody set goes off late."""
    before = signal.getsignal(signal.SIGALRM) or signal.SIG_DFL
    left, interval = signal.getitimer(signal.ITIMER_REAL)

    def ring(alarm: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, left, interval)
        signal.raise_signal(number)

    signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, AGAIN_SECONDS)
