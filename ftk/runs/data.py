"""`ftk data`: data as the model will see it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from ftk.core.types import Examples
from ftk.data.cache import default_cache_folder
from ftk.data.comparisons import read_comparisons
from ftk.data.holes import text_sources
from ftk.data.load import read_conversations
from ftk.data.prepare import PreparationReport, prepare
from ftk.data.prepare_comparisons import prepare_comparisons
from ftk.data.prepare_texts import first_pieces
from ftk.data.render import Renderer
from ftk.data.settings import Source
from ftk.data.show import Stretch, stretches
from ftk.data.statistics import Overlap, Statistics, overlap, statistics
from ftk.data.texts import read_texts
from ftk.models.load import load_tokenizer
from ftk.objectives.cpt import Cpt
from ftk.objectives.infill import Infill
from ftk.objectives.sft import Sft
from ftk.recipe.load import load_recipe
from ftk.recipe.schema import Recipe
from ftk.runs.infilling import infilling_of
from ftk.runs.max_length import max_length_of
from ftk.runs.training_data import check_overlap, read_text_part, recipe_renderer, retrieval_of
from ftk.runs.trust import tell_of_code

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_UNBOUND = 2**31 - 1
"""Rows are rendered whole."""


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
    formats: dict[str, str]
    """Format by source, of the sources that the rows are from."""
    prompt_weight_share: float | None
    """Share of the loss weight that lies on prompts, 0 to 1; None where rows are no conversations."""

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
        return {"rows": rows, "formats": self.formats, "prompt_weight_share": self.prompt_weight_share}


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


def preview(recipe_path: str, overrides: Sequence[str] = (), *, num_rows: int = 3) -> Preview:
    """The first rows of the training data, each token with its loss weight.

    Raises:
        FtkError: the recipe, the model or a row is wrong.
    """
    recipe = load_recipe(recipe_path, overrides).recipe
    tokenizer = _tokenizer(recipe)
    examples, share, formats = _first(recipe, tokenizer, num_rows)
    rows = tuple(
        PreviewRow(
            place=examples.place(example.index),
            stretches=tuple(stretches(example, tokenizer)),
            num_tokens=len(example.token_ids_L),
            num_answer_tokens=int(example.answers_L.sum()),
        )
        for example in examples
    )
    return Preview(rows, formats, share)


def _first(
    recipe: Recipe, tokenizer: "PreTrainedTokenizerBase", num_rows: int
) -> tuple[Examples, float | None, dict[str, str]]:
    """The first rows, the share of their loss weight that lies on prompts, and the format of each source looked at."""
    sources, max_length = recipe.data.train, max_length_of(recipe)
    if isinstance(recipe.task, Cpt | Infill):
        texts = read_texts(sources, role="data.train")
        check_overlap(recipe, max_length)
        how = infilling_of(recipe, tokenizer)[0] if isinstance(recipe.task, Infill) else None
        examples = first_pieces(
            texts, tokenizer, num_rows, max_length=max_length, overlap=recipe.data.overlap, infilling=how
        )
        return examples, None, {}
    renderer = recipe_renderer(recipe, tokenizer)
    examples, report, formats = _read(
        recipe, renderer, sources, role="data.train", max_length=max_length, num_rows=num_rows
    )
    return examples, report.prompt_weight_share if report.kind == "conversations" else None, formats


def stats(recipe_path: str, overrides: Sequence[str] = ()) -> DataStatistics:
    """Lengths, truncation, what teaches, duplicates, and what training and evaluation share.

    Rows are rendered whole, so that the lengths are those before any cut.

    Raises:
        FtkError: the recipe, the model or a row is wrong.
    """
    recipe = load_recipe(recipe_path, overrides).recipe
    tokenizer, max_length = _tokenizer(recipe), max_length_of(recipe)
    if isinstance(recipe.task, Cpt | Infill):
        return _text_stats(recipe, tokenizer, max_length)
    renderer = recipe_renderer(recipe, tokenizer)
    train, report, _ = _read(recipe, renderer, recipe.data.train, role="data.train", max_length=_UNBOUND)
    evaluation = None
    if recipe.data.eval:
        evaluation = _read(recipe, renderer, recipe.data.eval, role="data.eval", max_length=_UNBOUND)
    taken = [*report.taken, *(evaluation[1].taken if evaluation else ())]
    return DataStatistics(
        max_length=max_length,
        truncation=recipe.data.truncation,
        sources=tuple(str(one) for one in taken),
        train=statistics(train, max_length=max_length),
        eval=statistics(evaluation[0], max_length=max_length) if evaluation else None,
        overlap=overlap(train, evaluation[0]) if evaluation else None,
    )


def _text_stats(recipe: Recipe, tokenizer: "PreTrainedTokenizerBase", max_length: int) -> DataStatistics:
    read = partial(read_text_part, recipe, tokenizer=tokenizer, max_length=_UNBOUND)
    train = read(recipe.data.train, role="data.train")
    texts = text_sources(recipe.data.eval)
    held_out = read(texts, role="data.eval") if texts else None
    taken = [*train.report.taken, *(held_out.report.taken if held_out else ())]
    shared = overlap(train.examples, held_out.examples) if held_out else None
    return DataStatistics(
        max_length=max_length,
        truncation="cut into pieces",
        sources=tuple(str(one) for one in taken),
        train=statistics(train.examples, max_length=max_length),
        eval=statistics(held_out.examples, max_length=max_length) if held_out else None,
        # Texts have no prompts.
        overlap=replace(shared, num_prompts=0) if shared else None,
    )


def _tokenizer(recipe: Recipe) -> "PreTrainedTokenizerBase":
    tell_of_code(recipe.model)
    return load_tokenizer(recipe.model)


def _read(
    recipe: Recipe,
    renderer: Renderer,
    sources: Sequence[Source],
    *,
    role: str,
    max_length: int,
    num_rows: int | None = None,
) -> tuple[Examples, PreparationReport, dict[str, str]]:
    """All rows, or the first ones, as the recipe's task learns from them; and the format of each source looked at."""
    cache_folder = default_cache_folder() if num_rows is None else None
    task = recipe.task
    if isinstance(task, Sft):
        conversations = read_conversations(sources, role=role, retrieval=retrieval_of(recipe, role))
        prepared = prepare(
            conversations if num_rows is None else conversations.head(num_rows),
            renderer,
            settings=recipe.data,
            max_length=max_length,
            prompt_loss_weight=task.prompt_loss_weight,
            train_on=task.train_on,
            reasoning_weight=task.reasoning_weight,
            cache_folder=cache_folder,
        )
        return *prepared, conversations.formats
    comparisons = read_comparisons(sources, role=role, unpaired=task.rows == "unpaired")
    prepared = prepare_comparisons(
        comparisons if num_rows is None else comparisons.head(num_rows),
        renderer,
        settings=recipe.data,
        max_length=max_length,
        cache_folder=cache_folder,
        asides=False,
    )
    return *prepared, comparisons.formats
