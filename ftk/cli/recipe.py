"""`ftk recipe`: list, copy, show and check recipes."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from ftk.cli.flags import OVERRIDES_HELP

RecipePath = Annotated[str, typer.Argument(help="A recipe file, or the name of a shipped one.")]
Overrides = Annotated[list[str] | None, typer.Argument(help=OVERRIDES_HELP)]


def list_shipped() -> Mapping[str, object]:
    """List the recipes that ship with ftk."""
    from ftk.recipe.shipped import shipped_recipes

    recipes = shipped_recipes()
    width = max(len(recipe.name) for recipe in recipes)
    for recipe in recipes:
        print(f"{recipe.name:<{width}}  {recipe.line}")
    return {"recipes": [{"name": one.name, "about": one.line, "file": str(one.path)} for one in recipes]}


def copy(
    name: Annotated[str, typer.Argument(help="Name of a shipped recipe.")],
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file of that name.")] = False,
) -> Mapping[str, object]:
    """Copy a shipped recipe, and the schema for editors, to the current folder."""
    from ftk.runs.recipes import copy_recipe

    written = [str(path) for path in copy_recipe(name, Path(), force=force)]
    print(f"Wrote {' and '.join(written)}.")
    return {"files": written}


def show(
    recipe: RecipePath,
    overrides: Overrides = None,
    stage: Annotated[str | None, typer.Option("--stage", help="Id of a stage, to be shown as a recipe.")] = None,
) -> Mapping[str, object]:
    """Print a recipe, or a chain of stages, as it is resolved: extended, overridden, with every default."""
    from ftk.core.errors import RecipeError
    from ftk.recipe.load_stages import load_stages
    from ftk.recipe.stages import LoadedChain
    from ftk.runs.recipes import recipe_path

    loaded = load_stages(recipe_path(recipe), overrides or ())
    if stage is not None:
        if not isinstance(loaded, LoadedChain):
            raise RecipeError(f"{recipe} has no stages", place="--stage")
        chosen = loaded.stage(stage)
        if chosen.generates:
            raise RecipeError(f"stage {stage} generates answers, and is no recipe of its own", place="--stage")
        loaded = chosen.loaded
    print(loaded.as_yaml(), end="")
    return {"recipe": loaded.resolved(), "advice": loaded.advice}


def validate(recipe: RecipePath, overrides: Overrides = None) -> Mapping[str, object]:
    """Check a recipe, or a chain of stages: every violation at once, each with its line."""
    from ftk.recipe.load_stages import load_stages
    from ftk.runs.recipes import recipe_path

    loaded = load_stages(recipe_path(recipe), overrides or ())
    for advice in loaded.advice:
        print(f"advice: {advice}", file=sys.stderr)
    print("ok")
    return {"valid": True, "advice": loaded.advice}


def schema() -> Mapping[str, object]:
    """Print the JSON Schema by which editors complete and check recipes."""
    import json

    from ftk.recipe.json_schema import recipe_schema

    found = recipe_schema()
    print(json.dumps(found, indent=2, ensure_ascii=False))
    return found


commands = {"list": list_shipped, "copy": copy, "show": show, "validate": validate, "schema": schema}
