"""Rows of `evaluation.bias`: read before anything is trained, measured before and after."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftk.core.atomic import atomic_write
from ftk.core.errors import DataError
from ftk.core.types import Conversation, Examples
from ftk.data.batches import evaluation_batches
from ftk.data.checks import place_of
from ftk.data.load import read_conversations
from ftk.data.prepare import prepare
from ftk.data.render import Renderer
from ftk.data.settings import Source
from ftk.evaluation.bias import ANSWERS_DIFFER, LOSS_GAP, Bias, BiasRow, bias_figures
from ftk.evaluation.score import row_losses
from ftk.models.load import load_config, max_positions
from ftk.recipe.schema import Recipe
from ftk.runs.answers import ask, evaluate_answers
from ftk.runs.training_data import TrainingData

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import nn

MOST_ATTRIBUTES = 50
"""Values of the attribute past which it is a text of its own row, and no attribute."""


@dataclass(frozen=True)
class BiasData:
    """Rows in groups, read and rendered."""

    conversations: Sequence[Conversation]
    examples: Examples
    marks: Sequence[tuple[str, str, tuple[str, ...]]]
    """Group, attribute and the words that stand for it, of each row."""


def read_bias(recipe: Recipe, renderer: Renderer, *, max_length: int, num_positions: int | None) -> BiasData | None:
    """The rows of `evaluation.bias`; None where the recipe has none.

    Raises:
        DataError: a row does not read, is in no group with another attribute, or leaves no room for an answer.
    """
    settings = recipe.evaluation.bias
    if settings is None:
        return None
    source = Source(source=settings.source, format=settings.format, columns=settings.columns)
    # Rows of a group differ in their attribute alone: not in the order of their documents, nor in which are drawn.
    retrieval = recipe.data.retrieval.compared
    read = read_conversations([source], role="evaluation.bias", retrieval=retrieval, group="group")
    rows = _in_groups(read, settings)
    marks = [_marks(row) for row in rows]
    _check_groups(rows, marks)
    examples, _ = prepare(
        rows,
        renderer,
        # A row that is cut or dropped would not compare with the others of its group.
        settings=recipe.data.model_copy(update={"truncation": "error"}),
        max_length=max_length,
        prompt_loss_weight=0.0,
        train_on="last",
        cache_folder=None,
    )
    ask(renderer, rows, metrics=(), max_positions=num_positions)
    return BiasData(rows, examples, marks)


def read_run_bias(recipe: Recipe, data: TrainingData) -> BiasData | None:
    """The rows of a run's `evaluation.bias`, as `read_bias` reads them."""
    if recipe.evaluation.bias is None:
        return None
    positions = max_positions(load_config(recipe.model))
    return read_bias(recipe, data.renderer, max_length=data.max_length, num_positions=positions)


def measure_bias(
    data: BiasData,
    scoring: "nn.Module",
    causal_lm: "nn.Module",
    renderer: Renderer,
    *,
    tokens_per_batch: int,
    max_new_tokens: int,
    pad_token_id: int,
    file: Path | None,
    accelerator: "Accelerator | None" = None,
    tell: Callable[[str], None],
) -> dict[str, float]:
    """The figures of `bias_figures`; the rows are written to `file`, a JSON object a line."""
    batches = evaluation_batches(
        data.examples,
        tokens_per_batch=tokens_per_batch,
        pad_token_id=pad_token_id,
        process_index=accelerator.process_index if accelerator is not None else 0,
        num_processes=accelerator.num_processes if accelerator is not None else 1,
    )
    losses = row_losses(scoring, batches, len(data.conversations), accelerator)
    answered = evaluate_answers(
        causal_lm,
        renderer,
        data.conversations,
        metrics=(),
        max_new_tokens=max_new_tokens,
        pad_token_id=pad_token_id,
        accelerator=accelerator,
        tell=lambda sentence: tell(f"evaluation.bias: {sentence}"),
    )
    rows = [
        BiasRow(one.source, one.row, group, attribute, words, loss, one.answer)
        for one, (group, attribute, words), loss in zip(answered.rows, data.marks, losses, strict=True)
    ]
    if file is not None and (accelerator is None or accelerator.is_main_process):
        file.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(file, "".join(f"{row.as_json()}\n" for row in rows))
    return bias_figures(rows)


def bias_sentence(before: Mapping[str, float], after: Mapping[str, float]) -> str | None:
    """What became of the bias, in words; None where it was not measured."""
    if LOSS_GAP not in after:
        return None
    gap, differ = after[LOSS_GAP], after[ANSWERS_DIFFER]
    was = f", before {before[LOSS_GAP]:.3g} and {before[ANSWERS_DIFFER]:.1%}" if LOSS_GAP in before else ""
    return (
        f"between rows that differ in their attribute alone the loss differs by {gap:.3g} nats a token on average, and "
        f"the answers of {differ:.1%} of the groups differ{was}"
    )


def _in_groups(rows: Sequence[Conversation], settings: Bias) -> list[Conversation]:
    """The rows of the first `max_groups` groups."""
    for row in rows:
        missing = [name for name in ("group", "attribute") if row.columns.get(name) is None]
        if missing:
            raise DataError(
                f"the row has no {' and no '.join(missing)}, by which evaluation.bias compares rows; it has "
                f"{', '.join(row.columns)}. Say which column it is: columns: {{{missing[0]}: ...}}",
                place=place_of(row),
            )
    groups = list(dict.fromkeys(_text(row.columns["group"]) for row in rows))[: settings.max_groups]
    kept = set(groups)
    return [row for row in rows if _text(row.columns["group"]) in kept]


def _marks(row: Conversation) -> tuple[str, str, tuple[str, ...]]:
    group, attribute = _text(row.columns["group"]), _text(row.columns["attribute"])
    words: Any = row.columns.get("words")
    if words is None or words == "":
        return group, attribute, (attribute,)
    words = [words] if isinstance(words, str) else words
    if not isinstance(words, list | tuple) or not all(isinstance(word, str) for word in words):
        raise DataError(f"words is {words!r:.60}, expected a list of texts", place=place_of(row))
    return group, attribute, tuple(words)


def _check_groups(rows: Sequence[Conversation], marks: Sequence[tuple[str, str, tuple[str, ...]]]) -> None:
    attributes: dict[str, set[str]] = {}
    for group, attribute, _ in marks:
        attributes.setdefault(group, set()).add(attribute)
    for row, (group, attribute, _) in zip(rows, marks, strict=True):
        if len(attributes[group]) == 1:
            raise DataError(
                f"group {group} has rows of attribute {attribute} alone, so there is nothing to compare. Each group "
                "needs rows that differ in the attribute",
                place=place_of(row),
            )
    values = {attribute for _, attribute, _ in marks}
    if len(values) > MOST_ATTRIBUTES:
        raise DataError(
            f"the attribute has {len(values)} values, and figures are given for each of at most {MOST_ATTRIBUTES}. "
            "Name the kind in attribute, such as female, and the words of the row in words",
            place="evaluation.bias",
        )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)
