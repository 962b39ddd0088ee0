"""What a run is trained and measured on: rows read, rendered and cut, before anything is written or loaded."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from ftk.core.errors import RecipeError
from ftk.core.types import Conversation, Examples
from ftk.data.cache import default_cache_folder
from ftk.data.comparisons import conversations, read_comparisons
from ftk.data.formats.context_question_answer import NAME as CONTEXT_QUESTION_ANSWER
from ftk.data.load import read_conversations
from ftk.data.prepare import PreparationReport, prepare
from ftk.data.prepare_comparisons import prepare_comparisons
from ftk.data.prepare_texts import TextReport, prepare_texts
from ftk.data.render import Renderer, renderer_for
from ftk.data.retrieval import Retrieval
from ftk.data.settings import DataSettings, Source
from ftk.data.texts import read_texts
from ftk.models.load import load_config, load_tokenizer, max_positions
from ftk.objectives.cpt import Cpt
from ftk.objectives.sft import Sft
from ftk.recipe.schema import Recipe
from ftk.runs.without_context import rows_without_context

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DEFAULT_MAX_LENGTH = 2048
"""Tokens of the longest row where the recipe says nothing; the model's positions may allow less."""


@dataclass(frozen=True)
class Part:
    """Rows to train on, or rows held out."""

    examples: Examples
    report: PreparationReport | TextReport
    read: Callable[[], Sequence[Conversation]]

    @cached_property
    def conversations(self) -> Sequence[Conversation]:
        """The rows as questions with their answers, of a preference the chosen ones; read when first looked at."""
        return self.read()


@dataclass(frozen=True)
class TrainingData:
    """Everything that a run reads."""

    tokenizer: "PreTrainedTokenizerBase"
    conversing: Renderer | None
    """What renders conversations; None where plain text is learned, which a model without a chat template can."""
    max_length: int
    train: Part
    eval: Part | None
    closed: Part | None = None
    """Held-out rows with retrieved documents, without them; None where there are none, or they are not asked for."""

    @property
    def renderer(self) -> Renderer:
        """What renders conversations, of a run that learns from such."""
        assert self.conversing is not None
        return self.conversing

    @property
    def end_token_ids(self) -> tuple[int, ...]:
        """The tokens that are learned to end an answer or a text; a tokenizer may have none for a text."""
        if self.conversing is not None:
            return self.conversing.end_token_ids
        end = self.tokenizer.eos_token_id
        return () if end is None else (int(end),)

    @property
    def chat_template(self) -> str | None:
        """The template that rendered the rows; None keeps the model's own, if it has one."""
        return None if self.conversing is None else self.conversing.template.text

    @property
    def template_arguments(self) -> Mapping[str, Any]:
        """What the template was given beside the messages."""
        return {} if self.conversing is None else self.conversing.template.arguments

    @property
    def pad_token_id(self) -> int:
        """What fills rows up; never looked at, so any token will do where the tokenizer has none for it."""
        pad = self.tokenizer.pad_token_id
        return int(pad if pad is not None else next(iter(self.end_token_ids), 0))

    def lines(self) -> list[str]:
        """What a person should know of the rows."""
        lines = [f"train  {line}" for line in self.train.report.lines()]
        return lines + [f"eval   {line}" for line in (self.eval.report.lines() if self.eval else [])]


def read_training_data(recipe: Recipe) -> TrainingData:
    """Read and render all rows of a recipe.

    Raises:
        RecipeError: `data.max_length` is beyond the model's positions, or `data.overlap` beyond half of that.
        DataError: a row does not read, or would teach something broken.
    """
    tokenizer = load_tokenizer(recipe.model)
    max_length = max_length_of(recipe)
    if isinstance(recipe.task, Cpt):
        read_text = partial(read_text_part, recipe, tokenizer=tokenizer, max_length=max_length)
        train = read_text(recipe.data.train, role="data.train")
        held_out = read_text(recipe.data.eval, role="data.eval") if recipe.data.eval else None
        return TrainingData(tokenizer, None, max_length, train, held_out)
    renderer = recipe_renderer(recipe, tokenizer)
    read = partial(read_part, recipe, renderer=renderer, max_length=max_length)
    train = read(recipe.data.train, role="data.train")
    held_out = read(recipe.data.eval, role="data.eval") if recipe.data.eval else None
    check_retrieval(recipe, [train, *([held_out] if held_out else [])])
    closed = _without_context(recipe, held_out, renderer=renderer, max_length=max_length)
    return TrainingData(tokenizer, renderer, max_length, train, held_out, closed)


def retrieval_of(recipe: Recipe, role: str) -> Retrieval:
    """How retrieved documents are shown in rows of `role`."""
    return recipe.data.retrieval if role == "data.train" else recipe.data.retrieval.held_out


def recipe_renderer(recipe: Recipe, tokenizer: "PreTrainedTokenizerBase") -> Renderer:
    """What renders the rows of a recipe.

    Raises:
        DataError: there is no such template, or it cannot be used.
    """
    data = recipe.data
    return renderer_for(tokenizer, chat_template=data.chat_template, arguments=data.template_arguments)


def read_text_part(
    recipe: Recipe, sources: Sequence[Source], *, tokenizer: "PreTrainedTokenizerBase", role: str, max_length: int
) -> Part:
    """Read and tokenize the texts of `sources`, cut into pieces.

    Raises:
        RecipeError: `data.overlap` is beyond half of `max_length`.
        DataError: a text does not read, or there is none.
    """
    check_overlap(recipe, max_length)
    examples, report = prepare_texts(
        read_texts(sources, role=role),
        tokenizer,
        max_length=max_length,
        overlap=recipe.data.overlap,
        cache_folder=default_cache_folder(),
    )
    return Part(examples, report, lambda: ())


def check_overlap(recipe: Recipe, max_length: int) -> None:
    """
    Raises:
        RecipeError: `data.overlap` is beyond half of a piece.
    """
    if recipe.data.overlap > max_length // 2:
        raise RecipeError(
            f"{recipe.data.overlap} tokens are more than half of a piece, which holds {max_length}: most of each would "
            "be read without being learned. Lower it",
            place="data.overlap",
        )


def read_part(recipe: Recipe, sources: Sequence[Source], *, renderer: Renderer, role: str, max_length: int) -> Part:
    """Read and render the rows of `sources` as the recipe's task learns from them.

    Raises:
        DataError: a row does not read, or would teach something broken.
    """
    task, cache_folder = recipe.task, default_cache_folder()
    if isinstance(task, Sft):
        rows = read_conversations(sources, role=role, retrieval=retrieval_of(recipe, role))
        return _rendered(recipe.data, task, rows, renderer=renderer, max_length=max_length)
    comparisons = read_comparisons(sources, role=role, unpaired=task.rows == "unpaired")
    examples, report = prepare_comparisons(
        comparisons, renderer, settings=recipe.data, max_length=max_length, cache_folder=cache_folder
    )
    return Part(examples, report, lambda: conversations(comparisons))


def _rendered(
    settings: DataSettings, task: Sft, rows: Sequence[Conversation], *, renderer: Renderer, max_length: int
) -> Part:
    examples, report = prepare(
        rows,
        renderer,
        settings=settings,
        max_length=max_length,
        prompt_loss_weight=task.prompt_loss_weight,
        train_on=task.train_on,
        reasoning_weight=task.reasoning_weight,
        cache_folder=default_cache_folder(),
    )
    return Part(examples, report, lambda: rows)


def _without_context(recipe: Recipe, held_out: Part | None, *, renderer: Renderer, max_length: int) -> Part | None:
    """The held-out rows that have documents, without them."""
    task = recipe.task
    if held_out is None or not recipe.evaluation.without_context or not isinstance(task, Sft):
        return None
    if not _has_documents(held_out):
        return None
    rows = rows_without_context(held_out.conversations)
    return _rendered(recipe.data, task, rows, renderer=renderer, max_length=max_length)


def _has_documents(part: Part) -> bool:
    report = part.report
    return isinstance(report, PreparationReport) and any(one.format == CONTEXT_QUESTION_ANSWER for one in report.taken)


def check_retrieval(recipe: Recipe, parts: Sequence[Part]) -> None:
    """
    Raises:
        RecipeError: the recipe says how retrieved documents are shown, and no row has any.
    """
    if recipe.data.retrieval != Retrieval() and not any(map(_has_documents, parts)):
        raise RecipeError(
            f"no source is of format {CONTEXT_QUESTION_ANSWER}, the rows of which have documents, so it does nothing. "
            "Leave it out, or say which column is which (columns: {context: ..., question: ..., answer: ...})",
            place="data.retrieval",
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
