"""A recipe without a file, of a few values and overrides."""

import os
from collections.abc import Mapping, Sequence

from ftk.recipe.load import LoadedRecipe, checked
from ftk.recipe.overrides import overridden
from ftk.recipe.problems import listed
from ftk.recipe.schema import Recipe
from ftk.recipe.shapes import root_shape
from ftk.recipe.written import Problem, Written


def recipe_of(values: Mapping[str, str], overrides: Sequence[str] = ()) -> LoadedRecipe:
    """A recipe whose sections are each a plain word, with overrides on top.

    Raises:
        RecipeError: anything in it is wrong; every violation names its override.
    """
    shape = root_shape(Recipe)
    problems: list[Problem] = []
    sections = {section: Written(word, f"--{section}", text=word) for section, word in values.items()}
    written = shape.expanded(Written(dict(sections), "flags"))
    for override in overrides:
        written = overridden(written, override, shape, environment=os.environ, problems=problems)
    recipe, written = checked(written, shape, problems)
    if problems or recipe is None:
        raise listed(problems)
    return LoadedRecipe(recipe, "flags", written)
