"""How every command ends: what goes where, exit codes, and JSON for machines.

A command prints for a person: results to standard output, notes and progress to standard error. Under `--json` all that
it prints goes to standard error, and the mapping that it returns is the last and only line of standard output; on
failure that line is `{"error": {"type", "message", "place", "exit_code"}}`, beside what was found where the work was
done and a check of it failed.
"""

import json
import os
import select
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import typer

from ftk.core.errors import ExitCode, FtkError, RunError
from ftk.core.json_values import finite
from ftk.core.tell import tell

ANSWER_FILE = "FTK_ANSWER_FILE"
"""Variable that names a file for the answer, where another process of ftk started this one."""


class UsageError(Exception):
    """The words are none that `command` takes, such as `ftk recipe copy`."""

    def __init__(self, message: str, *, command: str) -> None:
        super().__init__(message)
        self.message = message
        self.command = command


class Ended(Exception):
    """The command ended in other processes, which have already told a person why."""

    def __init__(self, exit_code: int, answer: object | None) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code
        self.answer = answer


@dataclass(frozen=True)
class Ending:
    """What a command came to."""

    exit_code: int
    answer: Any = None
    """For a machine: what the command returned, or its error."""


def finish(work: Callable[[], object], *, as_json: bool) -> int:
    """Run a command's work, report how it ended, and return the exit code."""
    answer_file = os.environ.pop(ANSWER_FILE, None)
    if answer_file is not None:
        ending = _ending(work)
        if os.environ.get("RANK", "0") == "0" and ending.answer is not None:
            Path(answer_file).write_text(as_json_line(ending.answer), encoding="utf-8")
        return ending.exit_code
    try:
        if not as_json:
            ending = _ending(work)
            sys.stdout.flush()
            return ending.exit_code
        with _only_the_answer_on_stdout() as stdout:
            ending = _ending(work)
            if ending.answer is not None:
                print(as_json_line(ending.answer), file=stdout, flush=True)
            return ending.exit_code
    except BrokenPipeError:
        _forget_stdout()
        return ExitCode.PIPE_CLOSED


def as_json_line(answer: object) -> str:
    """One line of strict JSON: what is not finite becomes null, what JSON does not know becomes text."""
    return json.dumps(finite(answer), allow_nan=False, ensure_ascii=False, default=str)


def _ending(work: Callable[[], object]) -> Ending:
    """Raises BrokenPipeError where the reader of standard output has left."""
    try:
        result = work()
    except typer.Exit as end:
        return Ending(end.exit_code)
    except Ended as end:
        return Ending(end.exit_code, end.answer)
    except FtkError as error:
        ending = _failed(type(error).__name__, error.message, error.place, error.exit_code, shown=str(error))
        beside = error.answer if isinstance(error, RunError) else None
        return Ending(ending.exit_code, {**beside, **ending.answer}) if beside else ending
    except UsageError as error:
        shown = f"{error.message}\n{error.command} --help says what there is."
        return _failed("UsageError", error.message, None, ExitCode.INPUT, shown=shown)
    except (KeyboardInterrupt, typer.Abort):
        return _failed("Interrupted", "stopped by hand", None, ExitCode.INTERRUPTED, shown="Stopped by hand.")
    except BrokenPipeError:
        if _reader_has_left():
            raise
        return _defect()
    except SystemExit as end:
        # rich leaves by itself, with 1, where the reader has left.
        if isinstance(end.__context__, BrokenPipeError):
            raise end.__context__ from None
        raise
    except Exception:
        return _defect()
    return Ending(ExitCode.DONE, result)


def _failed(kind: str, message: str, place: str | None, exit_code: ExitCode, *, shown: str) -> Ending:
    tell(shown)
    error = {"type": kind, "message": message, "place": place, "exit_code": int(exit_code)}
    return Ending(exit_code, {"error": error})


def _defect() -> Ending:
    error = sys.exception()
    shown = f"{traceback.format_exc()}This is a defect of ftk: please report it, with what `ftk env` prints."
    return _failed(type(error).__name__, str(error), None, ExitCode.DEFECT, shown=shown)


@contextmanager
def _only_the_answer_on_stdout() -> Iterator[IO[str]]:
    """Yield where the answer goes; until then standard output is standard error, for child processes too."""
    stdout = sys.stdout
    is_replaced = stdout is not sys.__stdout__
    if is_replaced:
        with redirect_stdout(sys.stderr):
            yield stdout
        return
    stdout.flush()
    with open(os.dup(stdout.fileno()), "w", encoding="utf-8") as kept:
        os.dup2(sys.stderr.fileno(), stdout.fileno())
        try:
            with redirect_stdout(sys.stderr):
                yield kept
        finally:
            os.dup2(kept.fileno(), stdout.fileno())


def _reader_has_left() -> bool:
    """Whether it was our own output that broke, and not some other pipe or socket."""
    poll = select.poll()
    try:
        poll.register(sys.stdout.fileno(), 0)
    except OSError:
        return False
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _forget_stdout() -> None:
    """Send what is still buffered nowhere, so that Python's exit has nothing to complain of."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
