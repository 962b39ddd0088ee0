"""Data as the model will see it: what `ftk data` shows, and how a run comes by its examples."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftk.core.types import Conversation, Examples
from ftk.data.cache import default_cache_folder
from ftk.data.length import resolve_max_length
from ftk.data.load import Conversations, read_conversations
from ftk.data.prepare import PreparationReport, prepare
from ftk.data.render import Renderer, renderer_for
from ftk.data.settings import Source
from ftk.data.show import Stretch, stretches
from ftk.data.statistics import Overlap, Statistics, overlap, statistics
from ftk.models.load import load_config, load_tokenizer
from ftk.recipe.load import load_recipe
from ftk.recipe.schema import Recipe

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

_UNBOUND = 2**31 - 1


@dataclass(frozen=True)
class DataParts:
    """What turns the rows of a recipe into tokens."""

    tokenizer: "PreTrainedTokenizerBase"
    renderer: Renderer
    max_length: int


@dataclass(frozen=True)
class PreviewRow:
    """One row of the training data."""

    place: str
    stretches: tuple[Stretch, ...]
    num_tokens: int
    num_answer_tokens: int


@dataclass(frozen=True)
class Preview:
    """The first rows of the training data."""

    rows: tuple[PreviewRow, ...]
    report: PreparationReport

    def as_json(self) -> dict[str, Any]:
        rows = [
            {
                "place": row.place,
                "num_tokens": row.num_tokens,
                "num_answer_tokens": row.num_answer_tokens,
                "stretches": [one._asdict() for one in row.stretches],
            }
            for row in self.rows
        ]
        return {"rows": rows, "prompt_weight_share": self.report.prompt_weight_share}


@dataclass(frozen=True)
class DataStatistics:
    """Counts of the training data and the held-out data."""

    max_length: int
    truncation: str
    sources: tuple[str, ...]
    train: Statistics
    eval: Statistics | None
    overlap: Overlap | None

    def as_json(self) -> dict[str, Any]:
        answer = asdict(self)
        for name, part in (("train", self.train), ("eval", self.eval)):
            if part is not None:
                answer[name]["answer_share"] = part.answer_share
        return answer


def data_parts(recipe: Recipe) -> DataParts:
    """The tokenizer, the renderer and the length that a recipe asks for.

    Raises:
        ModelError: there is no such model.
        DataError: there is no such template.
        RecipeError: `data.max_length` is beyond the model's positions.
    """
    tokenizer = load_tokenizer(recipe.model)
    return DataParts(
        tokenizer=tokenizer,
        renderer=renderer_for(tokenizer, chat_template=recipe.data.chat_template),
        max_length=resolve_max_length(recipe.data.max_length, positions=_positions(load_config(recipe.model))),
    )


def prepare_rows(
    recipe: Recipe,
    parts: DataParts,
    conversations: Sequence[Conversation],
    *,
    cache_folder: Path | None,
    max_length: int | None = None,
) -> tuple[Examples, PreparationReport]:
    """The examples of some conversations as the recipe's task learns them.

    Raises:
        DataError: a row does not read, fails a check, or is too long.
    """
    return prepare(
        conversations,
        parts.renderer,
        settings=recipe.data,
        max_length=max_length or parts.max_length,
        prompt_loss_weight=recipe.task.prompt_loss_weight,
        train_on=recipe.task.train_on,
        cache_folder=cache_folder,
    )


def preview(recipe_path: str, overrides: Sequence[str] = (), *, num_rows: int = 3) -> Preview:
    """The first rows of the training data, each token with its loss weight.

    Raises:
        FtkError: the recipe, the model or a row is wrong.
    """
    recipe = load_recipe(recipe_path, overrides).recipe
    parts = data_parts(recipe)
    first = read_conversations(recipe.data.train, role="train").head(num_rows)
    examples, report = prepare_rows(recipe, parts, first, cache_folder=None)
    rows = tuple(
        PreviewRow(
            place=examples.place(example.index),
            stretches=tuple(stretches(example, parts.tokenizer)),
            num_tokens=len(example.token_ids_L),
            num_answer_tokens=int(example.answers_L.sum()),
        )
        for example in examples
    )
    return Preview(rows, report)


def stats(recipe_path: str, overrides: Sequence[str] = ()) -> DataStatistics:
    """Lengths, truncation, what teaches, duplicates, and what training and evaluation share.

    Rows are rendered whole, so that the lengths are those before any cut.

    Raises:
        FtkError: the recipe, the model or a row is wrong.
    """
    recipe = load_recipe(recipe_path, overrides).recipe
    parts = data_parts(recipe)
    train, report = _whole(recipe, parts, recipe.data.train, role="train")
    evaluation = _whole(recipe, parts, recipe.data.eval, role="eval") if recipe.data.eval else None
    taken = [*report.taken, *(evaluation[1].taken if evaluation else ())]
    return DataStatistics(
        max_length=parts.max_length,
        truncation=recipe.data.truncation,
        sources=tuple(str(one) for one in taken),
        train=statistics(train, max_length=parts.max_length),
        eval=statistics(evaluation[0], max_length=parts.max_length) if evaluation else None,
        overlap=overlap(train, evaluation[0]) if evaluation else None,
    )


def _whole(
    recipe: Recipe, parts: DataParts, sources: Sequence[Source], *, role: str
) -> tuple[Examples, PreparationReport]:
    rows: Conversations = read_conversations(sources, role=role)
    return prepare_rows(recipe, parts, rows, cache_folder=default_cache_folder(), max_length=_UNBOUND)


def _positions(config: "PretrainedConfig") -> int | None:
    return getattr(config.get_text_config(), "max_position_embeddings", None)
