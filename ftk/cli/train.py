"""`ftk train`."""

import json
import os
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

    An unfinished run of the same recipe goes on where it stopped. Ctrl-C and SIGTERM save a checkpoint first. Of a
    file with stages: each in order, from the model of the one before; those that are complete are skipped.
    """
    from ftk.cli.relay import STAGE, relay, relay_stage
    from ftk.core.errors import RecipeError
    from ftk.recipe.load_stages import load_stages
    from ftk.recipe.stages import LoadedChain

    if resume and fresh:
        raise RecipeError("--resume goes on and --fresh starts anew: give one of them")
    loaded = load_stages(recipe, overrides or ())
    if isinstance(loaded, LoadedChain):
        if STAGE not in os.environ:
            from ftk.runs.stages import run_stages

            return run_stages(loaded, resume=resume, fresh=fresh, train=relay_stage)
        place = json.loads(os.environ[STAGE])
        stage = loaded.stage(place["id"])
        loaded = stage.at(folder=place["folder"], model=place["model"], answers=place["answers"])
        if stage.generates:
            from ftk.runs.stage_answers import write_answers_of

            return write_answers_of(stage, loaded)
        # What goes on and what starts anew was decided for the chain.
        resume = fresh = False

    from ftk.train.launch import processes_to_start

    processes = processes_to_start(loaded.recipe.parallel.processes)
    if processes > 1:
        return relay(processes)

    from ftk.runs.finetune import finetune

    return finetune(loaded, resume=resume, fresh=fresh, force=force)
