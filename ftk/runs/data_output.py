"""Where a data tool writes: beside its input, never over it."""

from collections.abc import Sequence
from pathlib import Path

from ftk.core.errors import DataError
from ftk.data.files import SUFFIXES


def check_output_file(path: Path, inputs: Sequence[Path], *, force: bool) -> None:
    """Refuse what cannot be written, and above all the input itself, under whatever name.

    Raises:
        DataError: another kind of file, the input or a part of it, or a file that exists without `force`.
    """
    if path.suffix not in SUFFIXES:
        raise DataError(
            f"a {path.suffix or 'nameless'} file cannot be written, expected {', '.join(SUFFIXES)}", place=str(path)
        )
    check_not_in_the_way(path, inputs, force=force)
    # Several inputs are the files of a folder, which is read whole.
    if len(inputs) > 1 and any(path.resolve().parent == one.resolve().parent for one in inputs):
        raise DataError(
            "it would lie in the folder that is read, and be a part of it from then on. Name a file elsewhere",
            place=str(path),
        )


def check_not_in_the_way(path: Path, inputs: Sequence[Path], *, force: bool) -> None:
    """
    Raises:
        DataError: it is one of the inputs, a folder, or a file that exists without `force`.
    """
    if path.is_dir():
        raise DataError("it is a folder, expected the name of a file", place=str(path))
    if any(path.exists() and path.samefile(one) for one in inputs):
        raise DataError("it is the input itself, which is never altered. Name another file", place=str(path))
    if path.exists() and not force:
        raise DataError("exists already. --force overwrites it", place=str(path))


def check_output_folder(path: Path) -> None:
    """
    Raises:
        DataError: it is a file, or a folder with anything in it.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise DataError("exists already. Name a folder that does not exist, or is empty", place=str(path))
