"""Finding and copying the recipes that ship with ftk."""

import difflib
import shutil
from pathlib import Path

import yaml

from ftk.core.errors import RecipeError
from ftk.recipe.shipped import SCHEMA_FILE, ShippedRecipe, shipped_folder, shipped_recipes


def recipe_path(name: str) -> str:
    """A recipe file by its path, or a shipped one by its name."""
    if Path(name).exists():
        return name
    return next((str(recipe.path) for recipe in shipped_recipes() if recipe.name == name), name)


def copy_recipe(name: str, folder: Path, *, force: bool) -> list[Path]:
    """Copy a shipped recipe, what it extends, and the schema that it names for editors; returns what was written.

    Raises:
        RecipeError: there is no such recipe, or the file exists and `force` is not given.
    """
    recipe = _shipped(name)
    target = folder / recipe.path.name
    if target.exists() and not force:
        raise RecipeError("exists already. --force overwrites it", place=str(target))
    copies = [(recipe.path, target)]
    # The schema of an older ftk is replaced on demand alone, as any other file of the user's.
    for name in [*_extended(recipe.path), SCHEMA_FILE]:
        if force or not (folder / name).exists():
            copies.append((shipped_folder() / name, folder / name))
    try:
        return [Path(shutil.copyfile(source, destination)) for source, destination in copies]
    except OSError as error:
        raise RecipeError(f"cannot be written: {error.strerror}", place=str(folder)) from error


def _extended(path: Path) -> list[str]:
    """Names of the shipped recipes that one extends, the nearest first."""
    base = yaml.safe_load(path.read_text(encoding="utf-8")).get("extends")
    return [] if base is None else [base, *_extended(path.with_name(base))]


def _shipped(name: str) -> ShippedRecipe:
    recipes = {recipe.name: recipe for recipe in shipped_recipes()}
    found = recipes.get(name.removesuffix(".yaml"))
    if found is None:
        near = difflib.get_close_matches(name, recipes, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise RecipeError(f"no recipe of that name ships with ftk.{hint} There are: {', '.join(recipes)}", place=name)
    return found
