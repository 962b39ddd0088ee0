"""A command that other processes carry out: this one starts them, and ends as the first of them does."""

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from ftk.cli.output import ANSWER_FILE, Ended

STAGE = "FTK_STAGE"
"""Variable that tells a process which stage of a chain it trains, where, and from what: a JSON object."""
SIGNALS = 128
"""The exit code of a process that a signal ended is as much more than the signal's number."""


def relay(processes: int) -> Mapping[str, object] | None:
    """Run this very command once for each process; what the first one answered.

    Raises:
        Ended: the command failed, and has already said why.
        RunError: a process other than the first one failed.
    """
    from ftk.train.launch import launch, this_command

    with tempfile.TemporaryDirectory(prefix="ftk-answer-") as folder:
        path = Path(folder, "answer.json")
        os.environ[ANSWER_FILE] = str(path)
        try:
            exit_code = launch(this_command(), processes=processes)
        finally:
            del os.environ[ANSWER_FILE]
        answer = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    if exit_code:
        raise Ended(exit_code, answer)
    return answer


def relay_stage(id: str, *, folder: str, model: str, answers: Mapping[str, str]) -> Mapping[str, object]:
    """Run this very command in a process of its own for one stage of its chain; what it answered.

    Memory, precision and the group of processes are then each stage's own.

    Raises:
        Ended: the stage failed or was stopped, and has already said why.
        RunError: its process was ended from outside, and could say nothing.
    """
    from ftk.core.errors import ExitCode, RunError
    from ftk.train.launch import run_again, this_command

    with tempfile.TemporaryDirectory(prefix="ftk-answer-") as temporary:
        path = Path(temporary, "answer.json")
        stage = json.dumps({"id": id, "folder": folder, "model": model, "answers": answers})
        exit_code = run_again(this_command(), {ANSWER_FILE: str(path), STAGE: stage})
        answer = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if exit_code > SIGNALS and exit_code not in frozenset(ExitCode):
        raise RunError(
            f"the process of stage {id} was ended by signal {exit_code - SIGNALS}, from outside or for lack of memory. "
            "The same command goes on from its last checkpoint",
            answer={"stage": id},
        )
    if exit_code:
        raise Ended(exit_code, {**answer, "stage": id})
    return dict(answer)
