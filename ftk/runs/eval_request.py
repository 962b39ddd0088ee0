"""What `ftk eval` is asked for, and the recipe that holds then."""

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftk.core.atomic import try_to_write
from ftk.core.errors import RecipeError
from ftk.recipe.load import load_recipe
from ftk.recipe.schema import Recipe
from ftk.runs.ready_model import recipe_beside

_BARE_RECIPE = "model: ftk://tiny\ndata: {train: ftk://orders/train}\n"
"""What a model without a recipe is evaluated by, before the flags are put on top."""


@dataclass(frozen=True)
class EvalRequest:
    """What the command line asks for; None leaves it to the run's recipe, or to the default."""

    model: str
    data: str | None = None
    format: str | None = None
    columns: Mapping[str, str] | None = None
    subset: str | None = None
    split: str | None = None
    metrics: str | None = None
    """Names with commas between, or a YAML list."""
    shots: str = "0"
    train_data: str | None = None
    by: str | None = None
    max_new_tokens: int | None = None
    max_rows: int | None = None
    chat_template: str | None = None
    revision: str | None = None
    seed: int | None = None
    output: str | None = None
    bias: str | None = None
    by_position: bool | None = None
    passkey: str | None = None
    """Tokens of the texts, with commas between."""


def recipe_to_evaluate(request: EvalRequest) -> tuple[Recipe, bool]:
    """The run's recipe with the flags on top, and whether there was no run.

    Raises:
        RecipeError: a flag is wrong, or there are no held-out rows or no rows to show.
    """
    own = recipe_beside(request.model)
    if own is None and request.data is None:
        raise RecipeError(
            f"{request.model} is no run folder that would bring its own held-out rows. Name some with --data"
        )
    overrides = list(_overrides(request))
    if own is not None:
        recipe = load_recipe(str(own), overrides).recipe
    else:
        with tempfile.TemporaryDirectory() as folder:
            bare = Path(folder) / "recipe.yaml"
            bare.write_text(_BARE_RECIPE, encoding="utf-8")
            recipe = load_recipe(str(bare), overrides).recipe
    if not recipe.data.eval:
        raise RecipeError(f"the recipe of {request.model} names no held-out rows. Name some with --data")
    if own is None and any(recipe.evaluation.shots) and request.train_data is None:
        raise RecipeError("--shots shows training rows in the prompt. Name them with --train-data")
    return recipe, own is None


def _overrides(request: EvalRequest) -> list[str]:
    """The flags as paths of a recipe, so that they are checked and explained like one."""
    values: dict[str, Any] = {"model.id": request.model, "model.revision": request.revision}
    if request.data is not None:
        values["data.eval"] = [_source(request, request.data)]
    if request.train_data is not None:
        values["data.train"] = [_source(request, request.train_data, is_train=True)]
    values |= {
        "data.chat_template": request.chat_template,
        "evaluation.by": request.by,
        "evaluation.max_new_tokens": request.max_new_tokens,
        "evaluation.max_rows": request.max_rows,
        "evaluation.bias": None if request.bias is None else {"source": request.bias},
        "evaluation.by_position": request.by_position,
        "seed": request.seed,
    }
    written = [f"{path}={json.dumps(value)}" for path, value in values.items() if value is not None]
    # An id of another model is not at the revision that the run's base was at.
    revision = ["model.revision=null"] if request.revision is None else []
    # The model that the run left has its positions already, as an adapter's folder or config.json tells.
    before = ["evaluation.before=true", "model.context=null", *revision, *written]
    if request.metrics is not None and recipe_beside(request.model) is None and "infilling_" in request.metrics:
        # Without a recipe the metrics say what is asked of the model.
        before.append("task=infill")
    if request.metrics is not None:
        before.append(f"evaluation.metrics={_listed(request.metrics)}")
    if request.passkey is not None:
        before.append(f"evaluation.passkey.lengths={_listed(request.passkey)}")
    return [*before, f"evaluation.shots={_listed(request.shots)}"]


def _source(request: EvalRequest, name: str, *, is_train: bool = False) -> dict[str, Any]:
    settings = {
        "source": name,
        "format": request.format,
        "columns": request.columns,
        "subset": request.subset,
        "split": None if is_train else request.split,
    }
    return {key: value for key, value in settings.items() if value}


def _listed(text: str) -> str:
    """`a,b` as the YAML list `[a, b]`; a list or a mapping as it is."""
    stripped = text.strip()
    return stripped if stripped.startswith(("[", "{")) else f"[{stripped}]"


def file_for_answers(request: EvalRequest) -> Path:
    """Where answers go, which is found out before the long work of generating them.

    Raises:
        RecipeError: nothing can be written there.
    """
    path = Path(request.output).expanduser() if request.output else free_file(request.model, "answers")
    try:
        try_to_write(path)
    except OSError as error:
        raise RecipeError(f"the answers cannot be written: {error.strerror or error}", place=str(path)) from error
    return path


def free_file(model: str, name: str) -> Path:
    """Where rows go when nothing is said: beside a run's other evaluations, else here; under the next free name."""
    recipe = recipe_beside(model)
    folder = recipe.parent / "evaluations" if recipe is not None else Path()
    number = 1
    while (path := folder / f"{name}{f'-{number}' if number > 1 else ''}.jsonl").exists():
        number += 1
    return path
