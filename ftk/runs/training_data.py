"""What a run is trained and measured on: rows read, rendered and cut, before anything is written or loaded."""

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from ftk.core.errors import RecipeError
from ftk.core.types import Examples
from ftk.data.cache import default_cache_folder
from ftk.data.load import Conversations, read_conversations
from ftk.data.prepare import PreparationReport, prepare
from ftk.data.render import Renderer, renderer_for
from ftk.models.load import load_config, load_tokenizer, max_positions
from ftk.recipe.schema import Recipe

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DEFAULT_MAX_LENGTH = 2048
"""Tokens of the longest row where the recipe says nothing; the model's positions may allow less."""


@dataclass(frozen=True)
class TrainingData:
    """Everything that a run reads."""

    tokenizer: "PreTrainedTokenizerBase"
    renderer: Renderer
    max_length: int
    train_rows: Conversations
    train: Examples
    train_report: PreparationReport
    eval_rows: Conversations | None
    eval: Examples | None
    eval_report: PreparationReport | None

    @property
    def pad_token_id(self) -> int:
        """What fills rows up; never looked at, so any token will do where the tokenizer has none for it."""
        pad = self.tokenizer.pad_token_id
        return int(pad if pad is not None else self.renderer.end_token_ids[0])

    def lines(self) -> list[str]:
        """What a person should know of the rows."""
        lines = [f"train  {line}" for line in self.train_report.lines()]
        return lines + [f"eval   {line}" for line in (self.eval_report.lines() if self.eval_report else [])]


def read_training_data(recipe: Recipe) -> TrainingData:
    """Read and render all rows of a recipe.

    Raises:
        RecipeError: `data.max_length` is beyond the model's positions.
        DataError: a row does not read, or would teach something broken.
    """
    tokenizer = load_tokenizer(recipe.model)
    renderer = renderer_for(tokenizer, chat_template=recipe.data.chat_template)
    max_length = max_length_of(recipe)
    prepared = partial(
        prepare,
        renderer=renderer,
        settings=recipe.data,
        max_length=max_length,
        prompt_loss_weight=recipe.task.prompt_loss_weight,
        train_on=recipe.task.train_on,
        cache_folder=default_cache_folder(),
    )
    train_rows = read_conversations(recipe.data.train, role="data.train")
    train, train_report = prepared(train_rows)
    eval_rows = read_conversations(recipe.data.eval, role="data.eval") if recipe.data.eval else None
    evaluated = prepared(eval_rows) if eval_rows is not None else (None, None)
    return TrainingData(
        tokenizer, renderer, max_length, train_rows, train, train_report, eval_rows, evaluated[0], evaluated[1]
    )


def max_length_of(recipe: Recipe) -> int:
    """Tokens of the longest row.

    Raises:
        RecipeError: `data.max_length` is beyond the model's positions.
    """
    positions = max_positions(load_config(recipe.model))
    asked = recipe.data.max_length
    if asked is None:
        return min(DEFAULT_MAX_LENGTH, positions or DEFAULT_MAX_LENGTH)
    if positions is not None and asked > positions:
        raise RecipeError(
            f"{asked} tokens are more than the {positions} positions that {recipe.model.id} has. Set it to "
            f"{positions} or less",
            place="data.max_length",
        )
    return asked
