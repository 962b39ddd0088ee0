"""What a run is trained and measured on: rows read, rendered and cut, before anything is written or loaded."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from ftk.core.errors import RecipeError
from ftk.core.types import Conversation, Examples
from ftk.data.cache import default_cache_folder
from ftk.data.comparisons import conversations, read_comparisons
from ftk.data.load import read_conversations
from ftk.data.prepare import PreparationReport, prepare
from ftk.data.prepare_comparisons import prepare_comparisons
from ftk.data.render import Renderer, renderer_for
from ftk.data.settings import Source
from ftk.models.load import load_config, load_tokenizer, max_positions
from ftk.objectives.sft import Sft
from ftk.recipe.schema import Recipe

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DEFAULT_MAX_LENGTH = 2048
"""Tokens of the longest row where the recipe says nothing; the model's positions may allow less."""


@dataclass(frozen=True)
class Part:
    """Rows to train on, or rows held out."""

    examples: Examples
    report: PreparationReport
    read: Callable[[], Sequence[Conversation]]

    @cached_property
    def conversations(self) -> Sequence[Conversation]:
        """The rows as questions with their answers, of a preference the chosen ones; read when first looked at."""
        return self.read()


@dataclass(frozen=True)
class TrainingData:
    """Everything that a run reads."""

    tokenizer: "PreTrainedTokenizerBase"
    renderer: Renderer
    max_length: int
    train: Part
    eval: Part | None

    @property
    def pad_token_id(self) -> int:
        """What fills rows up; never looked at, so any token will do where the tokenizer has none for it."""
        pad = self.tokenizer.pad_token_id
        return int(pad if pad is not None else self.renderer.end_token_ids[0])

    def lines(self) -> list[str]:
        """What a person should know of the rows."""
        lines = [f"train  {line}" for line in self.train.report.lines()]
        return lines + [f"eval   {line}" for line in (self.eval.report.lines() if self.eval else [])]


def read_training_data(recipe: Recipe) -> TrainingData:
    """Read and render all rows of a recipe.

    Raises:
        RecipeError: `data.max_length` is beyond the model's positions.
        DataError: a row does not read, or would teach something broken.
    """
    tokenizer = load_tokenizer(recipe.model)
    renderer = renderer_for(tokenizer, chat_template=recipe.data.chat_template)
    max_length = max_length_of(recipe)
    train = read_part(recipe, recipe.data.train, renderer, role="data.train", max_length=max_length)
    held_out = None
    if recipe.data.eval:
        held_out = read_part(recipe, recipe.data.eval, renderer, role="data.eval", max_length=max_length)
    return TrainingData(tokenizer, renderer, max_length, train, held_out)


def read_part(recipe: Recipe, sources: Sequence[Source], renderer: Renderer, *, role: str, max_length: int) -> Part:
    """Read and render the rows of `sources` as the recipe's task learns from them.

    Raises:
        DataError: a row does not read, or would teach something broken.
    """
    task, cache_folder = recipe.task, default_cache_folder()
    if isinstance(task, Sft):
        rows = read_conversations(sources, role=role)
        examples, report = prepare(
            rows,
            renderer,
            settings=recipe.data,
            max_length=max_length,
            prompt_loss_weight=task.prompt_loss_weight,
            train_on=task.train_on,
            cache_folder=cache_folder,
        )
        return Part(examples, report, lambda: rows)
    comparisons = read_comparisons(sources, role=role, unpaired=task.rows == "unpaired")
    examples, report = prepare_comparisons(
        comparisons, renderer, settings=recipe.data, max_length=max_length, cache_folder=cache_folder
    )
    return Part(examples, report, lambda: conversations(comparisons))


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
