"""Files and folders that appear under their name complete, or not at all."""

import glob
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def atomic_write(path: Path, content: str | bytes) -> None:
    """Write a file in one go: what stood under `path` before stays until the new content is on the disk."""
    temporary = _sibling(path)
    data = content.encode() if isinstance(content, str) else content
    try:
        temporary.write_bytes(data)
        _sync(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync(path.parent)


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A temporary sibling to write, which takes the place of `path` on leaving; after an error it is removed."""
    temporary = _sibling(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield temporary
        _sync(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync(path.parent)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A temporary sibling to fill, which takes the place of `path` on leaving; after an error it is removed."""
    temporary = _sibling(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        for place, _, files in os.walk(temporary):
            for name in files:
                _sync(Path(place, name))
            _sync(Path(place))
        _take_place(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    _sync(path.parent)


def try_to_write(path: Path) -> None:
    """Make sure that a file or folder `path` can be written, by another one in the nearest folder that exists.

    A look at the permissions is not enough: root passes it on a read-only file system.

    Raises:
        OSError: it cannot.
    """
    folder = path.parent
    while not folder.exists():
        folder = folder.parent
    probe = _sibling(folder / "can-write")
    probe.touch()
    probe.unlink()


def remove_folder(path: Path) -> None:
    """Remove a folder so that no half of it can be seen under its name."""
    doomed = _sibling(path)
    path.rename(doomed)
    shutil.rmtree(doomed)


def remove_leftovers(folder: Path, name: str | None = None) -> None:
    """Remove what writes into `folder` left behind that were killed.

    Args:
        folder: in which no other process may be writing, unless a name is given.
        name: of the file or folder whose leftovers go, and of processes that have ended only; None takes all.
    """
    for path in folder.glob(f".{'*' if name is None else glob.escape(name)}{SUFFIX}*"):
        if name is not None and _is_being_written(path):
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


SUFFIX = ".ftk-tmp-"
"""What names of unfinished files and folders have in them."""


def _is_being_written(path: Path) -> bool:
    """Whether the process that a temporary name ends with is still there."""
    number = re.search(r"\d+", path.name.rpartition(SUFFIX)[2])
    if number is None or int(number[0]) == os.getpid():
        return number is not None
    try:
        os.kill(int(number[0]), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _sibling(path: Path) -> Path:
    return path.with_name(f".{path.name}{SUFFIX}{os.getpid()}")


def _take_place(temporary: Path, path: Path) -> None:
    if path.is_dir():
        # A folder that is not empty cannot be replaced in one step; for an instant there is none.
        doomed = path.with_name(f".{path.name}{SUFFIX}old-{os.getpid()}")
        path.rename(doomed)
        temporary.rename(path)
        shutil.rmtree(doomed)
    else:
        temporary.rename(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
