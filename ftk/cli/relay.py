"""A command that several processes carry out: this one starts them, and ends as the first of them does."""

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from ftk.cli.output import ANSWER_FILE, Ended


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
