"""The folder that a merge writes: free, writable, and with room, before anything is."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from ftk.core.atomic import try_to_write
from ftk.core.errors import RecipeError
from ftk.memory.units import shown
from ftk.models.locate import model_folder

SHARD_BYTES = 5 * 10**9
"""Largest file of weights, where none is asked for."""


def require_free(out: Path, sources: Mapping[str, Path]) -> None:
    """Make sure that the folder can be made, and that nothing is overwritten.

    Args:
        out: the folder that will be written.
        sources: folders that are read, by what a message calls them.

    Raises:
        RecipeError: `out` exists, is a source or within one, or cannot be written.
    """
    resolved = out.resolve()
    for name, folder in sources.items():
        source = folder.expanduser().resolve()
        if resolved == source or source in resolved.parents:
            raise RecipeError(f"{out} is {name} itself or lies within it. Name another folder", place="--out")
    if out.exists() or out.is_symlink():
        raise RecipeError(f"{out} exists already. Name another folder, or remove that one first", place="--out")
    try:
        try_to_write(out)
    except OSError as error:
        raise RecipeError(f"{out} cannot be written: {error.strerror}. Name another folder", place="--out") from error


def local_folders(names: Mapping[str, str]) -> dict[str, Path]:
    """The folders of models that are here, before any is downloaded.

    Args:
        names: folders, runs, `ftk://` names or hub ids, by what a message calls them.

    Raises:
        ModelError: a folder holds no model.
    """
    paths = {called: Path(name).expanduser() for called, name in names.items() if name}
    return {called: model_folder(path) for called, path in paths.items() if path.exists()}


def require_space(out: Path, num_bytes: int) -> None:
    """Make sure, before anything is written, that the disk has room.

    Raises:
        RecipeError: it has too little.
    """
    folder = out.resolve().parent
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if num_bytes > free:
        raise RecipeError(
            f"{out} needs {shown(num_bytes)}, and its disk has {shown(free)} free. Free some, or name a folder on "
            "another disk",
            place="--out",
        )
