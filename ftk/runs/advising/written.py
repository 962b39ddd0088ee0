"""A recipe with changes as a file that extends the one it came from."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ftk.core.atomic import atomic_write
from ftk.core.errors import RecipeError
from ftk.recipe.load import LoadedRecipe, load_recipe
from ftk.recipe.yaml_text import write_yaml


def check_new_file(path: Path) -> None:
    """
    Raises:
        RecipeError: there is something of that name, or no folder to put it in.
    """
    if path.exists() or path.is_symlink():
        raise RecipeError("exists already and is not overwritten. Name another file", place=str(path))
    if not path.parent.is_dir():
        raise RecipeError(f"there is no folder {path.parent}", place=str(path))
    if path.suffix not in (".yaml", ".yml"):
        raise RecipeError("a recipe is a .yaml file", place=str(path))


def write_changed(path: Path, base: str, changed: LoadedRecipe, comments: Sequence[str]) -> None:
    """Write what of `changed` differs from the recipe file `base`, as an extension of that.

    Raises:
        RecipeError: the file cannot be written.
    """
    differing = difference(load_recipe(base).resolved(), changed.resolved())
    extends = os.path.relpath(Path(base).resolve(), path.resolve().parent)
    lines = [*(f"# {comment}" for comment in comments), "", write_yaml({"extends": extends, **differing})]
    write_recipe(path, "\n".join(lines))


def write_recipe(path: Path, text: str) -> None:
    """
    Raises:
        RecipeError: the file cannot be written.
    """
    try:
        atomic_write(path, text)
    except OSError as error:
        raise RecipeError(f"cannot be written: {error.strerror}", place=str(path)) from error


def difference(base: Any, changed: Any) -> Any:
    """What must be written on top of `base` to come to `changed`; a section of another name as a whole."""
    if not isinstance(base, dict) or not isinstance(changed, dict) or base.get("name") != changed.get("name"):
        return changed
    return {key: difference(base.get(key), value) for key, value in changed.items() if base.get(key) != value}
