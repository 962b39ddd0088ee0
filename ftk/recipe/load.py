"""From a file and overrides to one validated recipe, or to one error that lists everything wrong with it."""

import difflib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ftk.core.errors import RecipeError
from ftk.recipe.advice import advice, advice_on_rows
from ftk.recipe.explain import explained, located, place_of
from ftk.recipe.overrides import overridden
from ftk.recipe.problems import listed
from ftk.recipe.rules import violations
from ftk.recipe.schema import Recipe
from ftk.recipe.shapes import Shape, root_shape
from ftk.recipe.shipped import shipped_recipes
from ftk.recipe.written import Path as Keys
from ftk.recipe.written import Problem, Written, dotted, merged
from ftk.recipe.yaml_text import decode, read_yaml, write_yaml


@dataclass(frozen=True)
class LoadedRecipe:
    """A recipe, and where each of its values was written."""

    recipe: Recipe
    file: str
    """As the user gave it."""
    written: Written

    @property
    def places(self) -> dict[str, str]:
        """`file:line`, or the override, of every value that was written, by dotted path."""
        return {dotted(path): node.place for path, node in self.written.walk()}

    def place(self, path: str) -> str:
        """Where a value was written, or what is around it; the file for what was left to its default."""
        return place_of(tuple(int(part) if part.isdecimal() else part for part in path.split(".")), self.written)

    @property
    def advice(self) -> list[str]:
        """What is unusual, each with its place."""
        return [f"{self.place(path)}: {text}" for path, text in advice(self.recipe)]

    def advice_on_rows(self, num_rows: int, formats: Sequence[str] = ()) -> list[str]:
        """What is unusual for a training set of this size and of these formats, each with its place."""
        return [f"{self.place(path)}: {text}" for path, text in advice_on_rows(self.recipe, num_rows, formats)]

    def resolved(self) -> dict[str, Any]:
        """The whole recipe, defaults included, as JSON values.

        What came from the environment stands as it was written (`${NAME}`, and `$${` for a literal `${`), so that
        secrets are not in it and it loads again to the same values.
        """
        data = self.recipe.model_dump(mode="json")
        for path, node in self.written.walk():
            if node.source is not None:
                _put(data, path, node.source)
        return data

    def as_yaml(self) -> str:
        """The resolved recipe as a file that loads to the same recipe."""
        return write_yaml(self.resolved())


def load_recipe(
    path: str, overrides: Sequence[str] = (), *, environment: Mapping[str, str] | None = None
) -> LoadedRecipe:
    """Read a recipe with what it extends, put overrides on top, and check all of it.

    Raises:
        RecipeError: the file cannot be read or is no YAML, it holds a chain of stages, or anything in it is wrong;
            every violation has its line.
    """
    variables = os.environ if environment is None else environment
    problems: list[Problem] = []
    shape = root_shape(Recipe)
    written = read_recipe(path, variables, problems)
    stages = written.child("stages")
    if stages is not None:
        raise RecipeError(
            "is a chain of stages, which ftk train runs, and one recipe is expected here. "
            f"`ftk recipe show {path} --stage ID > stage.yaml` writes one of its stages as a recipe",
            place=stages.place,
        )
    for override in overrides:
        written = overridden(written, override, shape, environment=variables, problems=problems)
    recipe, written = checked(written, shape, problems)
    if problems or recipe is None:
        raise listed(problems)
    return LoadedRecipe(recipe, path, written)


def read_recipe(path: str, variables: Mapping[str, str], problems: list[Problem]) -> Written:
    """A file on top of what it extends, as it was written; what cannot be read in it joins `problems`.

    Raises:
        RecipeError: a file cannot be read or is no YAML.
    """
    return _read(Path(path), path, root_shape(Recipe), variables, problems, extended_by=())


def checked(written: Written, shape: Shape, problems: list[Problem], *, of: str = "") -> tuple[Recipe | None, Written]:
    """The recipe, where it is one, and it as written with shorthand filled in; what is wrong joins `problems`.

    `of` stands before what is said of sections that do not go together, as those may have been written apart.
    """
    written = shape.expanded(written)
    broken = {problem.place for problem in problems}
    problems += _numbers_that_are_booleans(written, shape)
    recipe, written, found = _validated(written, shape)
    # A value that could not be read, such as one with an unset variable, is not also told to be of the wrong type.
    problems += [problem for problem in found if problem.place not in broken]
    if recipe is not None:
        problems += [Problem(place_of(_keys(at), written), f"{of}{message}") for at, message in violations(recipe)]
    return recipe, written


def _read(
    file: Path,
    name: str,
    shape: Shape,
    variables: Mapping[str, str],
    problems: list[Problem],
    *,
    extended_by: tuple[Path, ...],
) -> Written:
    """One file on top of what it extends; `name` is how messages call it."""
    text = decode(_content(file, name), name)
    written = read_yaml(text, name, environment=variables, problems=problems)
    if written.value is None:
        raise RecipeError("is empty. `ftk recipe copy quickstart` gives one to start from", place=name)
    if not isinstance(written.value, dict):
        raise RecipeError("is no recipe: expected sections such as model: and data:", place=written.place)
    items = dict(written.value)
    base = items.pop("extends", None)
    own = shape.expanded(replace(written, value=items))
    if base is None or base.value is None:
        return own
    here = (*extended_by, file.resolve())
    parent = _parent_of(file, base, here)
    return merged(_read(parent, os.path.relpath(parent), shape, variables, problems, extended_by=here), own)


def _parent_of(file: Path, base: Written, chain: tuple[Path, ...]) -> Path:
    if not isinstance(base.value, str):
        raise RecipeError("extends names one file, relative to this one", place=base.place)
    parent = file.parent / base.value
    if parent.resolve() in chain:
        loop = " → ".join(link.name for link in (*chain, parent.resolve()))
        raise RecipeError(f"extends runs in a circle: {loop}", place=base.place)
    if not parent.is_file():
        shipped = {recipe.path.name: recipe.name for recipe in shipped_recipes()}
        copy = f" `ftk recipe copy {shipped[parent.name]}` puts the shipped one here" if parent.name in shipped else ""
        raise RecipeError(
            f"extends: there is no file {base.shown()} beside this one ({file.parent.resolve()}).{copy}",
            place=base.place,
        )
    return parent


def _content(file: Path, name: str) -> bytes:
    try:
        return file.read_bytes()
    except FileNotFoundError as error:
        raise RecipeError(f"there is no such file.{_near_files(file)}", place=name) from error
    except IsADirectoryError as error:
        inside = " The run's own is recipe.yaml in it" if (file / "recipe.yaml").is_file() else ""
        raise RecipeError(f"is a folder, expected a recipe file.{inside}", place=name) from error
    except OSError as error:
        raise RecipeError(f"cannot be read: {error.strerror}", place=name) from error


def _near_files(file: Path) -> str:
    beside = [entry.name for entry in file.parent.glob("*.yaml")] if file.parent.is_dir() else []
    near = difflib.get_close_matches(file.name, beside, n=1)
    if near:
        return f" Did you mean {file.parent / near[0]}?"
    shipped = [recipe.name for recipe in shipped_recipes() if recipe.name == file.stem]
    if shipped:
        return f" `ftk recipe copy {shipped[0]}` puts the shipped one here"
    return " `ftk recipe list` tells the shipped ones"


def _validated(written: Written, shape: Shape) -> tuple[Recipe | None, Written, list[Problem]]:
    """The recipe, or what pydantic finds wrong. Text that looks like a number is text where text is asked for."""
    try:
        return Recipe.model_validate(written.data()), written, []
    except ValidationError as error:
        errors = error.errors(include_url=False)
    unquoted = [located(entry["loc"], written) for entry in errors if entry["type"] == "string_type"]
    as_text = written
    for path in unquoted:
        as_text = _as_text(as_text, path)
    if as_text == written:
        return None, written, explained(errors, written, shape)
    return _validated(as_text, shape)


def _as_text(node: Written, path: Keys) -> Written:
    """The value at a path as it was written, `2024` instead of the number; anything but a scalar stays."""
    if not path:
        is_scalar = isinstance(node.value, int | float) and node.text is not None
        return replace(node, value=node.text) if is_scalar else node
    child = node.child(path[0])
    if child is None:
        return node
    changed = _as_text(child, path[1:])
    if isinstance(node.value, dict):
        return replace(node, value={**node.value, str(path[0]): changed})
    if isinstance(node.value, list):
        return replace(node, value=[changed if item is child else item for item in node.value])
    return node


def _numbers_that_are_booleans(written: Written, shape: Shape) -> list[Problem]:
    """Pydantic takes true for 1."""
    found: list[Problem] = []
    for path, node in written.walk():
        if not isinstance(node.value, bool):
            continue
        here, at = shape, written
        for part in path:
            below = here.below(part, at)
            child = at.child(part)
            if below is None or child is None:
                break
            here, at = below, child
        else:
            if here.scalars & {int, float} and not here.scalars & {bool, str}:
                found.append(Problem(node.place, f"{dotted(path)} is {node.shown()}, expected a number"))
    return found


def _keys(path: str) -> Keys:
    return tuple(int(part) if part.isdecimal() else part for part in path.split("."))


def _put(data: Any, path: Keys, value: str) -> None:
    for part in path[:-1]:
        data = data[part]
    data[path[-1]] = value
