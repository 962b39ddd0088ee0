"""What rows are, seen from their columns: which kind of training they are for, how they read, how long they are."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ftk.core.errors import DataError
from ftk.core.types import Conversation
from ftk.data.comparisons import read_comparisons
from ftk.data.formats import FORMATS, PREFERENCE_FORMATS, format_of
from ftk.data.formats.unpaired import LABELS
from ftk.data.load import read_conversations
from ftk.data.prepare import prepare
from ftk.data.prepare_comparisons import prepare_comparisons
from ftk.data.render import renderer_for
from ftk.data.settings import DataSettings, Source
from ftk.data.source import reader_of
from ftk.runs.advising.text_look import documents_of, num_tokens_of, text_source

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Kind = Literal["sft", "cpt", "infill", "preference"]
MOST_ROWS = 5_000
"""Rows whose tokens are counted, evenly spread over all: enough for a quantile of 99%, in seconds."""
CHARACTERS_A_TOKEN = 2
"""Where no tokenizer is to be had: half of the customary four of English (OpenAI's help page "What are tokens and how
to count them"), since JSON, numbers and other languages take more, and too short a row loses text."""
QUESTIONS = ("question", "problem", "query", "instruction", "input", "prompt", "user")
ANSWERS = ("answer", "solution", "response", "output", "completion", "target", "assistant")
"""Names under which data sets have the two sides of a row, the commonest first."""
UNBOUND = 2**31 - 1


@dataclass(frozen=True, slots=True)
class DataLook:
    """What was seen of the data."""

    source: Source
    kind: Kind
    format: str
    reason: str
    """Why it is of this kind."""
    num_rows: int
    lengths: tuple[int, ...]
    """Tokens of the rows that were counted; of plain text of its documents."""
    answers: tuple[int, ...] = ()
    """Tokens of their answers."""
    are_json: bool = False
    """Whether all answers are JSON."""
    is_counted: bool = True
    """Whether tokens were counted, and not taken from the number of characters."""
    loss: Literal["dpo", "kto"] = "dpo"
    """Of preferences: pairs, or completions by themselves."""
    num_parts: int = 0
    """Of plain text: lines of the one file, or documents; what a slice counts."""

    @property
    def is_text(self) -> bool:
        """Whether plain text is learned."""
        return self.kind in ("cpt", "infill")

    @property
    def is_sample(self) -> bool:
        """Whether some rows were not counted."""
        return len(self.lengths) < self.num_rows

    def quantile(self, share: float) -> int:
        """Tokens that so large a share of the rows do not exceed."""
        return int(np.quantile(self.lengths, share, method="inverted_cdf"))

    @property
    def num_tokens(self) -> int:
        """Of all rows; of a sample as many as its mean says."""
        return round(float(np.mean(self.lengths)) * self.num_rows)


def look_at(data: str, tokenizer: "PreTrainedTokenizerBase | None") -> DataLook:
    """Read the data, find what it is for, and count its tokens.

    Raises:
        DataError: it does not read, or its columns say nothing; with what would help.
    """
    source, kind = text_source(data)
    if source is not None:
        reason = "source code is mostly edited in the middle" if kind == "infill" else "files of plain text are read on"
        return look_at_texts(source, kind, tokenizer, reason)
    rows = [row.columns for row in reader_of(Source(source=data)).rows()]
    columns = list(rows[0])
    judged = format_of(columns, PREFERENCE_FORMATS)
    if judged is not None and not (judged.name == "unpaired" and not _are_verdicts(rows)):
        return _preferences(Source(source=data), judged.name, tokenizer)
    known = format_of(columns, FORMATS)
    if known is not None:
        reason = f"the columns {', '.join(known.needs)} are those of {known.name}: answers are learned"
        return _conversations(Source(source=data), known.name, reason, tokenizer)
    if "text" in columns:
        return look_at_texts(Source(source=data), "cpt", tokenizer, "rows with a text and no answer are read on")
    return _guessed(data, columns, tokenizer)


def _guessed(data: str, columns: Sequence[str], tokenizer: "PreTrainedTokenizerBase | None") -> DataLook:
    by_name = {column.lower(): column for column in columns}
    question = next((by_name[name] for name in QUESTIONS if name in by_name), None)
    answer = next((by_name[name] for name in ANSWERS if name in by_name), None)
    if question is None or answer is None:
        raise DataError(
            f"the columns {', '.join(columns)} do not say what is asked and what is answered. Rename them to question "
            "and answer, or write the recipe with columns: {question: ..., answer: ...}; `ftk recipe copy quickstart` "
            "gives one to start from",
            place=data,
        )
    mapping = {"question": question, "answer": answer}
    source = Source(source=data, format="question_answer", columns=mapping)
    reason = f"{question} looks like a question and {answer} like its answer, which is learned"
    return _conversations(source, "question_answer", reason, tokenizer)


def _conversations(
    source: Source,
    format: str,
    reason: str,
    tokenizer: "PreTrainedTokenizerBase | None",
) -> DataLook:
    rows = read_conversations([source], role="data")
    sample = _spread(rows)
    texts = [_last_answer(row) for row in sample]
    are_json = all(_is_json_object(text) for text in texts)
    if tokenizer is None:
        lengths = tuple(_of_characters(sum(len(str(one["content"])) for one in row.messages)) for row in sample)
        answers = tuple(_of_characters(len(text)) for text in texts)
        return DataLook(source, "sft", format, reason, len(rows), lengths, answers, are_json, is_counted=False)
    settings = DataSettings(train=(source,))
    examples, _ = prepare(
        sample,
        renderer_for(tokenizer, chat_template=None),
        settings=settings,
        max_length=UNBOUND,
        prompt_loss_weight=0.0,
        train_on="last",
        cache_folder=None,
    )
    answers = tuple(int(example.answers_L.sum()) for example in examples)
    lengths = tuple(map(int, examples.lengths_N))
    return DataLook(source, "sft", format, reason, len(rows), lengths, answers, are_json)


def _preferences(source: Source, format: str, tokenizer: "PreTrainedTokenizerBase | None") -> DataLook:
    unpaired = format == "unpaired"
    what = "completions with a verdict" if unpaired else "completions that are compared"
    reason = f"the columns are those of {format}: {what}"
    comparisons = read_comparisons([source], role="data", unpaired=unpaired)
    sample = _spread(comparisons)
    loss: Literal["dpo", "kto"] = "kto" if unpaired else "dpo"
    if tokenizer is None:
        lengths = tuple(
            _of_characters(
                sum(len(str(message["content"])) for part in (row.prompt, *row.completions) for message in part)
            )
            for row in sample
        )
        return DataLook(source, "preference", format, reason, len(comparisons), lengths, is_counted=False, loss=loss)
    examples, _ = prepare_comparisons(
        sample,
        renderer_for(tokenizer, chat_template=None),
        settings=DataSettings(train=(source,)),
        max_length=UNBOUND,
        cache_folder=None,
        asides=False,
    )
    lengths = tuple(map(int, examples.lengths_N))
    return DataLook(source, "preference", format, reason, len(comparisons), lengths, loss=loss)


def look_at_texts(
    source: Source, kind: Literal["cpt", "infill"], tokenizer: "PreTrainedTokenizerBase | None", reason: str
) -> DataLook:
    """
    Raises:
        DataError: a text does not read, or there is none.
    """
    documents = documents_of(source)
    sample = _spread(documents.heads)
    tokens = [_of_characters(len(head)) for head in sample] if tokenizer is None else num_tokens_of(sample, tokenizer)
    lengths = tuple(
        round(number * size / len(head))
        for number, size, head in zip(tokens, _spread(documents.sizes), sample, strict=True)
    )
    return DataLook(
        source,
        kind,
        "text",
        reason,
        len(documents.sizes),
        lengths,
        is_counted=tokenizer is not None,
        num_parts=documents.num_parts,
    )


def _spread(rows: Sequence[Any]) -> list[Any]:
    step = -(-len(rows) // MOST_ROWS)
    return [rows[place] for place in range(0, len(rows), step)] if step else []


def _are_verdicts(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether `label` says good or bad; of many a set it is a class."""
    return all(str(row.get("label")).strip().lower().removesuffix(".0") in LABELS for row in rows[:MOST_ROWS])


def _last_answer(row: Conversation) -> str:
    return next(str(one["content"]) for one in reversed(row.messages) if one["role"] == "assistant")


def _is_json_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict | list)
    except ValueError:
        return False


def _of_characters(number: int) -> int:
    return max(1, -(-number // CHARACTERS_A_TOKEN))
