"""`ftk train`."""

from collections.abc import Mapping
from typing import Annotated

import typer

from ftk.cli.flags import OVERRIDES_HELP


def command(
    recipe: Annotated[str, typer.Argument(help="A recipe file.")],
    overrides: Annotated[list[str] | None, typer.Argument(help=OVERRIDES_HELP)] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Insist on going on with an unfinished run.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start anew in the next numbered folder.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Go on where the memory will not suffice by the estimate.")
    ] = False,
) -> Mapping[str, object] | None:
    """Train a model as a recipe says, and measure it before and after.

    An unfinished run of the same recipe goes on where it stopped. Ctrl-C and SIGTERM save a checkpoint first.
    """
    from ftk.core.errors import RecipeError
    from ftk.recipe.load import load_recipe

    if resume and fresh:
        raise RecipeError("--resume goes on and --fresh starts anew: give one of them")
    loaded = load_recipe(recipe, overrides or ())

    from ftk.cli.relay import relay
    from ftk.train.launch import processes_to_start

    processes = processes_to_start(loaded.recipe.parallel.processes)
    if processes > 1:
        return relay(processes)

    from ftk.runs.finetune import finetune

    return finetune(loaded, resume=resume, fresh=fresh, force=force)
