"""Flags that shorten a recipe path: one table, for every command that reads a recipe."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import typer

OVERRIDES_HELP = "Values to change, such as training.epochs=1 or data.train.0.weight=2, read as YAML."


@dataclass(frozen=True)
class Flag:
    """`--epochs 1` is `training.epochs=1`."""

    name: str
    """Of the parameter; the flag is written with dashes."""
    path: str
    help: str

    def parameter(self) -> inspect.Parameter:
        """The parameter by which typer learns of the flag."""
        option = typer.Option(f"--{self.name.replace('_', '-')}", metavar="VALUE", help=f"{self.help} ({self.path})")
        return inspect.Parameter(
            self.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[str | None, option]
        )


RECIPE_FLAGS = (
    Flag("model", "model.id", "Hub id, folder or run folder of the model"),
    Flag("output", "output.folder", "Where results go"),
    Flag("epochs", "training.epochs", "Passes over the data"),
    Flag("max_steps", "training.max_steps", "Optimizer steps at which to end"),
    Flag("batch_size", "training.batch_size", "Examples an optimizer step"),
    Flag("micro_batch_size", "training.micro_batch_size", "Rows a forward pass, or auto"),
    Flag("learning_rate", "training.learning_rate", "Peak learning rate"),
    Flag("precision", "training.precision", "auto, fp32, bf16 or fp16"),
    Flag("processes", "parallel.processes", "Number of processes, or auto"),
    Flag("strategy", "parallel.strategy", "ddp, fsdp or fsdp_offload"),
    Flag("seed", "seed", "Seed of everything random"),
)


def as_overrides(values: Mapping[str, object]) -> list[str]:
    """The flags that were given, as overrides `path=value`."""
    return [f"{flag.path}={values[flag.name]}" for flag in RECIPE_FLAGS if values.get(flag.name) is not None]


def columns_by_role(text: str | None) -> dict[str, str] | None:
    """What `--columns question=problem,answer=solution` says; None where it is not given.

    Raises:
        RecipeError: it does not say pairs.
    """
    from ftk.core.errors import RecipeError

    if text is None:
        return None
    found = [pair.partition("=") for pair in text.split(",")]
    if not all(role.strip() and column.strip() for role, _, column in found):
        raise RecipeError(
            f"{text!r} does not say columns. Expected question=problem,answer=solution", place="--columns"
        )
    return {role.strip(): column.strip() for role, _, column in found}
