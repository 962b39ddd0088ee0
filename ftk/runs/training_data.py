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
from ftk.data.holes import Hole, text_sources
from ftk.data.infill import Infilling
from ftk.data.infill_format import InfillFormat
from ftk.data.load import read_conversations
from ftk.data.prepare import PreparationReport, prepare
from ftk.data.prepare_comparisons import prepare_comparisons
from ftk.data.prepare_texts import prepare_texts
from ftk.data.render import Renderer, renderer_for
from ftk.data.retrieval import Retrieval
from ftk.data.settings import DataSettings, Source
from ftk.data.text_report import TextReport
from ftk.data.texts import read_texts
from ftk.models.load import load_tokenizer
from ftk.objectives.cpt import Cpt
from ftk.objectives.infill import Infill
from ftk.objectives.sft import Sft
from ftk.recipe.schema import Recipe
from ftk.runs.infilling import added_line, held_out_holes, infilling_of
from ftk.runs.max_length import max_length_of
from ftk.runs.tuned_model import NewTokens
from ftk.runs.without_context import rows_without_context

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


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
class InfillingData:
    """What infilling has besides rows."""

    format: InfillFormat
    added_tokens: tuple[str, ...]
    """What the tokenizer has got, and the model does not know yet."""
    left_to_right: Part | None
    """The held-out texts as they stand, for what the model loses of reading on."""
    holes: Sequence[Hole]


@dataclass(frozen=True)
class TrainingData:
    """Everything that a run reads."""

    tokenizer: "PreTrainedTokenizerBase"
    conversing: Renderer | None
    """What renders conversations; None where plain text is learned, which a model without a chat template can."""
    max_length: int
    train: Part
    eval: Part | None
    infilling: InfillingData | None = None
    """What infilling needs besides; None for another task."""
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
        ends = [self.tokenizer.eos_token_id, self.infilling.format.end if self.infilling is not None else None]
        return tuple(dict.fromkeys(int(end) for end in ends if end is not None))

    @property
    def new_tokens(self) -> NewTokens | None:
        """What the tokenizer has got for this run; None where the model knows all of its tokens."""
        if self.infilling is None or not self.infilling.added_tokens:
            return None
        ids = (int(self.tokenizer.convert_tokens_to_ids(token)) for token in self.infilling.added_tokens)
        return NewTokens(tuple(ids), len(self.tokenizer))

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
        added = self.infilling.added_tokens if self.infilling is not None else ()
        lines = [added_line(added)] if added else []
        lines += [f"train  {line}" for line in self.train.report.lines()]
        return lines + [f"eval   {line}" for line in (self.eval.report.lines() if self.eval else [])]


def read_training_data(recipe: Recipe) -> TrainingData:
    """Read and render all rows of a recipe.

    Raises:
        RecipeError: `data.max_length` is beyond the model's positions, or `data.overlap` beyond half of that.
        DataError: a row does not read, or would teach something broken.
    """
    tokenizer = load_tokenizer(recipe.model)
    max_length = max_length_of(recipe)
    if isinstance(recipe.task, Infill):
        return _read_infill(recipe, tokenizer, max_length)
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
    return TrainingData(tokenizer, renderer, max_length, train, held_out, closed=closed)


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


def _read_infill(recipe: Recipe, tokenizer: "PreTrainedTokenizerBase", max_length: int) -> TrainingData:
    """Texts to train on, rearranged; held-out ones likewise, and the holes in them."""
    how, added = infilling_of(recipe, tokenizer)
    read = partial(read_text_part, recipe, tokenizer=tokenizer, max_length=max_length)
    train = read(recipe.data.train, role="data.train", infilling=how)
    texts = text_sources(recipe.data.eval)
    held_out = read(texts, role="data.eval", infilling=how) if texts else None
    as_they_stand = read(texts, role="data.eval") if texts else None
    holes = held_out_holes(recipe, tokenizer, max_length=max_length)
    own = InfillingData(how.format, added, as_they_stand, holes)
    return TrainingData(tokenizer, None, max_length, train, held_out, own)


def read_text_part(
    recipe: Recipe,
    sources: Sequence[Source],
    *,
    tokenizer: "PreTrainedTokenizerBase",
    role: str,
    max_length: int,
    infilling: Infilling | None = None,
) -> Part:
    """Read and tokenize the texts of `sources`, cut into pieces, rearranged where `infilling` says how.

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
        infilling=infilling,
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
