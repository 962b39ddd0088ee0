"""Errors for the user: one message without a traceback, and an exit code that a batch job can act on."""

from collections.abc import Mapping
from enum import IntEnum
from typing import ClassVar


class ExitCode(IntEnum):
    """How an ftk command ends."""

    DONE = 0
    DEFECT = 1
    INPUT = 2
    ENVIRONMENT = 3
    FAILED = 4
    STOPPED = 75
    INTERRUPTED = 130
    PIPE_CLOSED = 141
    """Whoever read our output has left, as `head` does; 128 + SIGPIPE, as of every Unix tool."""


class FtkError(Exception):
    """One message for a person: what, where, what was expected, what to do.

    `place` says where the fault lies (`recipe.yaml:14`, `rows.jsonl:3`), and None where there is no one place.
    """

    exit_code: ClassVar[ExitCode]

    def __init__(self, message: str, *, place: str | None = None) -> None:
        super().__init__(f"{place}: {message}" if place else message)
        self.message = message
        self.place = place


class RecipeError(FtkError):
    """The recipe, an override or a flag is wrong."""

    exit_code = ExitCode.INPUT


class DataError(FtkError):
    """Rows cannot be read, or would teach something broken.

    `finding` is the kind of finding that `ftk data check` makes of it, where that follows from the place alone.
    """

    exit_code = ExitCode.INPUT

    def __init__(self, message: str, *, place: str | None = None, finding: str | None = None) -> None:
        super().__init__(message, place=place)
        self.finding = finding


class ModelError(FtkError):
    """A model folder or hub id cannot be used."""

    exit_code = ExitCode.INPUT


class SetupError(FtkError):
    """The environment lacks something: an extra, a device."""

    exit_code = ExitCode.ENVIRONMENT


class RunError(FtkError):
    """The work ran and failed, or a check that was asked for did.

    `answer` is what a machine is told beside the error: the result of work that was done to its end.
    """

    exit_code = ExitCode.FAILED

    def __init__(self, message: str, *, place: str | None = None, answer: Mapping[str, object] | None = None) -> None:
        super().__init__(message, place=place)
        self.answer = answer


class Stopped(FtkError):
    """SIGTERM: a checkpoint is saved, and the same command resumes."""

    exit_code = ExitCode.STOPPED


class Interrupted(FtkError):
    """SIGINT: stopped by hand, with a checkpoint where there was time."""

    exit_code = ExitCode.INTERRUPTED
