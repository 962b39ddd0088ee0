"""Arrays that grow at their end: in memory, or in files that are mapped afterwards and need no memory."""

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray


class FlatArrays:
    """Some named arrays of one dimension, each of its own type; a context that closes their files."""

    def __init__(self, dtypes: Mapping[str, DTypeLike], folder: Path | None) -> None:
        """
        Args:
            dtypes: type of each array by name.
            folder: where their files go; None keeps them in memory.
        """
        self._dtypes = dtypes
        self._parts: dict[str, list[NDArray[Any]]] = {name: [] for name in dtypes}
        self._files: dict[str, BinaryIO] = {}
        self._open = ExitStack()
        if folder is not None:
            for name in dtypes:
                self._files[name] = self._open.enter_context(_file(folder, name).open("wb"))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def append(self, **values: Any) -> None:
        """Add numbers or arrays at the end of the arrays of those names."""
        for name, value in values.items():
            array = np.atleast_1d(np.asarray(value, self._dtypes[name]))
            if self._files:
                self._files[name].write(array.tobytes())
            else:
                self._parts[name].append(array)

    def in_memory(self) -> dict[str, NDArray[Any]]:
        """The arrays, where they have no files."""
        return {
            name: np.concatenate([np.zeros(0, self._dtypes[name]), *parts]).astype(self._dtypes[name], copy=False)
            for name, parts in self._parts.items()
        }


def mapped(dtypes: Mapping[str, DTypeLike], folder: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a folder, read as they are looked at.

    Raises:
        OSError: one is not there.
        ValueError: one is empty, or cut off within a number.
    """
    return {
        name: np.asarray(np.memmap(_file(folder, name), dtype=np.dtype(dtype), mode="r"))
        for name, dtype in dtypes.items()
    }


def _file(folder: Path, name: str) -> Path:
    return folder / f"{name}.bin"
