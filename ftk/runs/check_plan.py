"""What `ftk data check` is asked for: the recipe that holds then, and the checks that its rows go through."""

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ftk.core.errors import RecipeError
from ftk.data.check import ROW_CHECKS, SET_CHECKS
from ftk.data.check.against import Profile
from ftk.data.check.benchmark import Benchmark
from ftk.data.check.length_outlier import LengthOutlier
from ftk.data.check.near_duplicates import NearDuplicate
from ftk.data.check.rendered import Rendered, RowRenderer
from ftk.data.check.row import Family
from ftk.data.check.scan import Plan, RowCheck, SetCheck
from ftk.data.check.special_token_leak import SpecialTokenLeak
from ftk.data.render import Renderer
from ftk.data.template_text import template_text
from ftk.models.load import load_tokenizer
from ftk.models.settings import ModelSettings
from ftk.objectives.sft import Sft
from ftk.recipe.load import load_recipe
from ftk.recipe.schema import Recipe
from ftk.runs.max_length import max_length_of

_RECIPE_SUFFIXES = (".yaml", ".yml")
_BARE_RECIPE = "model: ftk://tiny\ndata: {train: ftk://orders/train}\n"
"""What a data file without a recipe is checked by, before the flags are put on top."""


@dataclass(frozen=True)
class CheckRequest:
    """What the command line asks for."""

    target: str
    """A recipe, or a data file, folder or hub id."""
    overrides: Sequence[str] = ()
    eval: str | None = None
    """Held-out rows instead of the recipe's."""
    model: str | None = None
    format: str | None = None
    columns: Mapping[str, str] | None = None
    benchmarks: Sequence[str] = ()
    against: str | None = None
    near: bool = True
    similarity: float = 0.8
    num_processes: int | None = None


def recipe_to_check(request: CheckRequest) -> tuple[Recipe, bool]:
    """The recipe with the flags on top, and whether there was none but a data file.

    Raises:
        RecipeError: a flag or the recipe is wrong.
    """
    written: list[str] = list(request.overrides)
    is_bare = Path(request.target).suffix not in _RECIPE_SUFFIXES
    if request.model is not None:
        written.append(f"model.id={json.dumps(request.model)}")
    if request.eval is not None:
        written.append(f"data.eval={json.dumps([_source(request, request.eval)])}")
    if not is_bare:
        if request.format is not None or request.columns:
            raise RecipeError(
                "--format and --columns are for data files; a recipe says them of each source, such as "
                "data.train.0.format=messages"
            )
        return load_recipe(request.target, written).recipe, False
    with tempfile.TemporaryDirectory() as folder:
        bare = Path(folder) / "recipe.yaml"
        bare.write_text(_BARE_RECIPE, encoding="utf-8")
        source = f"data.train={json.dumps([_source(request, request.target)])}"
        return load_recipe(str(bare), [source, *written]).recipe, True


def _source(request: CheckRequest, name: str) -> dict[str, Any]:
    settings = {"source": name, "format": request.format, "columns": request.columns}
    return {key: value for key, value in settings.items() if value}


def family_learned(recipe: Recipe) -> Family:
    """What the rows of such a recipe have to be."""
    if isinstance(recipe.task, Sft):
        return "conversations"
    return "preferences" if recipe.task.name == "preference" else "texts"


def plan_of(recipe: Recipe, request: CheckRequest, *, has_model: bool, learns: Family | None) -> Plan:
    """What rows are looked at for; those to be rendered only where there is a model to render them for."""
    row_checks: list[RowCheck] = list(ROW_CHECKS)
    set_checks: list[SetCheck] = list(SET_CHECKS)
    renderer = None
    renders = has_model and learns != "texts"
    if renders:
        max_length = max_length_of(recipe)
        row_checks.append(Rendered(max_length, recipe.data.truncation))
        renderer = partial(
            _row_renderer,
            recipe.model,
            chat_template=recipe.data.chat_template,
            arguments=recipe.data.template_arguments,
            max_length=max_length,
            truncation=recipe.data.truncation,
            train_on=recipe.task.train_on if isinstance(recipe.task, Sft) else "all",
        )
    tokens = tuple(_special_tokens(recipe.model)) if has_model else ()
    row_checks.append(SpecialTokenLeak(tokens))
    set_checks.append(LengthOutlier(unit="tokens" if renders else "characters"))
    if request.near:
        set_checks.append(NearDuplicate(threshold=request.similarity))
    return Plan(tuple(row_checks), tuple(set_checks), renderer=renderer)


def _row_renderer(
    model: ModelSettings, *, chat_template: str | None, arguments: Mapping[str, Any], **settings: Any
) -> RowRenderer:
    tokenizer = load_tokenizer(model)
    return RowRenderer(Renderer(tokenizer, template_text(chat_template, tokenizer), arguments), **settings)


def _special_tokens(model: ModelSettings) -> list[str]:
    tokenizer = load_tokenizer(model)
    added = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    return sorted({*tokenizer.all_special_tokens, *added})


def for_training(plan: Plan, profile: Profile | None, benchmarks: tuple[Benchmark, ...]) -> Plan:
    """The plan with what only training rows are looked at for."""
    more: tuple[SetCheck, ...] = (profile,) if profile is not None else ()
    return Plan(plan.row_checks, (*plan.set_checks, *more), benchmarks, plan.renderer)
