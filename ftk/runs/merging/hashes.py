"""Hashes of a merge's sources, computed beside it from the first moment on: while torch is still being imported."""

import os
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Event
from types import TracebackType
from typing import Self

from ftk.core.errors import FtkError
from ftk.core.file_hash import sha256
from ftk.recipe.yaml_text import decode, read_yaml


class Hashes:
    """Hashes files one after another in a thread of its own."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1)
        self._stop = Event()
        self._found: dict[Path, Future[str]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._pool.shutdown(cancel_futures=True)

    def start(self, files: Iterable[Path]) -> None:
        """Have files hashed, if they are not yet."""
        for file in files:
            path = file.absolute()
            if path not in self._found:
                self._found[path] = self._pool.submit(sha256, path, stop=self._stop)

    def of(self, files: Iterable[Path]) -> dict[str, str]:
        """SHA-256 of each file, by its name."""
        files = list(files)
        self.start(files)
        return {file.name: self._found[file.absolute()].result() for file in files}

    def start_early(self, merge_file: str) -> None:
        """Begin with the local folders that a merge's file names, before it is checked."""
        try:
            text = decode(Path(merge_file).read_bytes(), merge_file)
            written = read_yaml(text, merge_file, environment=os.environ, problems=[])
        except (OSError, FtkError):
            # It is read again in a moment, and then told.
            return
        words = dict.fromkeys(node.value for _, node in written.walk() if isinstance(node.value, str))
        for word in words:
            if len(word) < 1000 and "\n" not in word and Path(word).is_dir():
                self.start(sorted(Path(word).glob("*.safetensors")))
