"""A row as the checks see it: read with forbearance, so that a broken one is told of and the others are looked at."""

import json
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, Literal, NamedTuple

from ftk.core.errors import DataError
from ftk.core.types import Message
from ftk.data.check.finding import Remark
from ftk.data.formats import FORMATS, PREFERENCE_FORMATS, format_named, format_of, preference_format_named
from ftk.data.formats.format import Format, FormatError, Reading
from ftk.data.formats.judgement import Answer, Judgement, same
from ftk.data.shared_prompt import check_compared, shared_length
from ftk.data.source import SourceRow
from ftk.data.system_message import SystemMessage, with_system
from ftk.data.tool_calls import tool_fault

Family = Literal["conversations", "preferences", "texts"]
TEXT_COLUMN = "text"
UNREADABLE = Remark("unreadable", "error", "the row does not read as its format")


class Turn(NamedTuple):
    """One text of a row."""

    role: str
    """`system`, `user`, `assistant`, `tool`; a completion of a preference by its name; `text` for a document."""
    text: str

    @property
    def side(self) -> str:
        """How a message for a person calls it."""
        if self.role in ("system", "user", "tool"):
            return "the prompt"
        return "the text" if self.role == "text" else "the answer"


class Rendering(NamedTuple):
    """What became of a row under a model's template and tokenizer."""

    num_tokens: int
    """Of the longest text of the row; 0 where it did not render."""
    fault: tuple[str, str] | None
    """Kind and message of what would stop training."""
    loses_end: bool
    """Whether the cut at `max_length` takes the end of turn of an answer that stays in part."""


class CheckedRow(NamedTuple):
    """One row as read."""

    number: int
    source: str
    turns: tuple[Turn, ...] = ()
    prompt: str = ""
    """All before the last answer."""
    answer: str = ""
    """The last answer; of a preference, the better one."""
    question: str = ""
    """What must not have two verdicts; empty where nothing does."""
    verdict: str = ""
    label: str = ""
    """The class the row is of, where it has one of few words."""
    conversations: tuple[tuple[Message, ...], ...] = ()
    """What a template renders: the row, or the prompt with each completion."""
    tools: tuple[Mapping[str, Any], ...] = ()
    fault: str = ""
    """Why the row does not read."""
    rendering: Rendering | None = None

    @property
    def text(self) -> str:
        """Everything the row says."""
        return self.turns[0].text if len(self.turns) == 1 else "\n".join([turn.text for turn in self.turns])


def family_of(row: SourceRow, format: str, *, learns: Family | None = None) -> tuple[Family, str]:
    """What rows such as this one are, and the name of their format.

    Preferences go first, since they carry the columns of conversations beside their own.

    Args:
        row: the first of its source.
        format: what the source says of it.
        learns: what the recipe's task learns from; None where there is no recipe.

    Raises:
        DataError: the columns are of no known format.
    """
    if learns == "texts":
        return "texts", TEXT_COLUMN
    if format != "auto":
        judges = format in PREFERENCE_FORMATS or (learns == "preferences" and format not in FORMATS)
        return ("preferences" if judges else "conversations"), format
    judging = format_of(row.columns, PREFERENCE_FORMATS)
    if judging is not None and learns != "conversations":
        return "preferences", judging.name
    telling = format_of(row.columns, FORMATS) or _one_sided(row.columns)
    if telling is not None and learns != "preferences":
        return "conversations", telling.name
    if TEXT_COLUMN in row.columns and learns is None:
        return "texts", TEXT_COLUMN
    raise _unknown_columns(row)


def _unknown_columns(row: SourceRow) -> DataError:
    formats: list[Format[Any]] = [*FORMATS.values(), *PREFERENCE_FORMATS.values()]
    known = "; ".join(f"{one.name}: {', '.join(one.needs)}" for one in formats)
    return DataError(
        f"the columns {', '.join(row.columns)} are of no known format ({known}; text: text). Say which column is which "
        "(data.train.0.columns={question: ..., answer: ...}), or read rows by your own module:function "
        "(data.train.0.format=...)",
        place=row.place,
    )


class RowReader:
    """Reads rows of one format."""

    def __init__(self, family: Family, format: str, *, system: SystemMessage | None) -> None:
        self._family, self._system = family, system
        self._format: Format[Any] | None = None
        if family == "conversations":
            self._format = format_named(format)
        elif family == "preferences":
            self._format = preference_format_named(format)

    def read(self, row: SourceRow) -> CheckedRow:
        """The row; with a `fault` and no turns where it does not read."""
        if self._format is None:
            value = row.columns.get(TEXT_COLUMN)
            if not isinstance(value, str | None):
                return CheckedRow(row.number, row.name, fault=f"text is {type(value).__name__}, expected text")
            return CheckedRow(row.number, row.name, (Turn("text", value or ""),), answer=value or "")
        try:
            reading = _read(self._format, row.columns)
            if isinstance(reading, Judgement):
                return _judged(row, reading, self._system)
        except FormatError as error:
            return CheckedRow(row.number, row.name, fault=str(error))
        return _told(row, reading, self._system)


def _one_sided(columns: Mapping[str, Any]) -> Format[Reading] | None:
    """The format whose first column is there: rows that have a prompt and no answer yet."""
    return next((one for one in FORMATS.values() if one.needs[0] in columns), None)


def _read(format: Format[Any], columns: Mapping[str, Any]) -> Any:
    try:
        return format.read(columns)
    except (FormatError, KeyError):
        # What is missing reads as empty, which a check then tells of.
        filled = {**columns, **{name: _filled(columns.get(name)) for name in (*format.needs, *_prompt(columns))}}
        return format.read(filled)


def _prompt(columns: Mapping[str, Any]) -> tuple[str, ...]:
    return ("prompt",) if "prompt" in columns else ()


def _filled(value: Any) -> Any:
    if value is None:
        return ""
    if isinstance(value, list | tuple):
        return [_with_text(one) for one in value]
    return value


def _with_text(message: Any) -> Any:
    if not isinstance(message, Mapping):
        return "" if message is None else message
    for key in ("content", "value"):
        if key in message and message[key] is None:
            return {**message, key: ""}
    return {**message, "content": ""} if set(message) == {"role"} else message


def _told(row: SourceRow, reading: Reading, system: SystemMessage | None) -> CheckedRow:
    messages = with_system(reading.messages, system)
    fault = tool_fault(messages, reading.tools)
    if fault is not None:
        return CheckedRow(row.number, row.name, fault=fault)
    turns = tuple([Turn(message["role"], _text(message)) for message in messages])
    last = max((place for place, turn in enumerate(turns) if turn.role == "assistant"), default=len(turns))
    prompt = _joined(turns[:last])
    answer = turns[last].text if last < len(turns) else ""
    return CheckedRow(
        number=row.number,
        source=row.name,
        turns=turns,
        prompt=prompt,
        answer=answer,
        question=prompt,
        verdict=answer,
        label=answer,
        conversations=(tuple(messages),),
        tools=tuple(reading.tools),
    )


def _judged(row: SourceRow, judgement: Judgement, system: SystemMessage | None) -> CheckedRow:
    """
    Raises:
        FormatError: its answers cannot be compared.
    """
    answers = sorted(judgement.answers, key=lambda one: -one.rating)
    if not answers:
        return CheckedRow(row.number, row.name)
    _check_judged(answers, judgement)
    asked = with_system(answers[0].prompt, system)
    turns = [Turn(message["role"], _text(message)) for message in asked]
    prompt = _joined(turns)
    completions = ["\n".join(map(_text, one.completion)) for one in answers]
    turns += [Turn(one.name, text) for one, text in zip(answers, completions, strict=True)]
    question, verdict, label = "", "", ""
    if judgement.desirable is not None:
        question, label = f"{prompt}\x1e{completions[0]}", "good" if judgement.desirable else "bad"
        verdict = label
    elif len(answers) == 2 and answers[0].rating > answers[1].rating:
        question, verdict = "\x1e".join([prompt, *sorted(completions)]), completions[0]
        longer = len(completions[0]) > len(completions[1])
        label = "the longer one chosen" if longer else "the shorter one chosen"
    return CheckedRow(
        number=row.number,
        source=row.name,
        turns=tuple(turns),
        prompt=prompt,
        answer=completions[0],
        question=question,
        verdict=verdict,
        label=label,
        conversations=tuple((*with_system(one.prompt, system), *one.completion) for one in answers),
        tools=tuple(judgement.tools),
    )


def _check_judged(ordered: Sequence[Answer], judgement: Judgement) -> None:
    for one in ordered:
        fault = tool_fault(one.messages, judgement.tools)
        if fault is not None:
            raise FormatError(fault)
    if len(ordered) == 1:
        check_compared(ordered[0].name, ordered[0].completion)
    for better, worse in combinations(ordered, 2):
        # Of a pair of equal texts, and of one without a side, checks of their own tell.
        told = len(ordered) == 2 and (
            same(better.messages, worse.messages) or not (better.completion and worse.completion)
        )
        if better.rating > worse.rating and not told:
            border = shared_length(better, worse, who=f"{better.name} and {worse.name}")
            for one in (better, worse):
                check_compared(one.name, one.messages[border:])


def _text(message: Message) -> str:
    content, calls = message.get("content"), message.get("tool_calls")
    if not calls:
        return content if isinstance(content, str) else ""
    return f"{content or ''}{json.dumps(calls, ensure_ascii=False, sort_keys=True, default=str)}"


def _joined(turns: Sequence[Turn]) -> str:
    return turns[0].text if len(turns) == 1 else "\n".join([turn.text for turn in turns])
