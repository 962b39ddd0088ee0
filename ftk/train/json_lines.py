"""Files of one JSON object a line, which grow with the run and are cut back when it resumes."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from ftk.core.atomic import atomic_write
from ftk.core.json_values import finite


class JsonLines:
    """A file that gets one object a line, at once."""

    def __init__(self, path: Path, *, up_to_step: int) -> None:
        """Open for writing. Lines of steps beyond `up_to_step`, and a line that a kill cut short, are taken off."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.kept = read_lines(path, up_to_step=up_to_step)
        """What stood there already."""
        atomic_write(path, "".join(_line(record) for record in self.kept))
        self._file: IO[str] = path.open("a", encoding="utf-8")

    def write(self, record: Mapping[str, Any]) -> None:
        """Append an object and hand it to the system; a number that is not finite becomes null."""
        self._file.write(_line(record))
        self._file.flush()

    def sync(self) -> None:
        """Wait until all lines are on the disk."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Put all on the disk, and no more."""
        self.sync()
        self._file.close()


def read_lines(path: Path, *, up_to_step: int | None = None) -> list[dict[str, Any]]:
    """The objects of a file, up to the first broken line or the first of a later step; none where there is no file."""
    records = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            record = json.loads(line)
        except ValueError:
            break
        if up_to_step is not None and record["step"] > up_to_step:
            break
        records.append(record)
    return records


def _line(record: Mapping[str, Any]) -> str:
    return json.dumps(finite(record), allow_nan=False) + "\n"
