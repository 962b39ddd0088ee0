"""Conversations of one source: which format its rows are of, and what they say."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

from ftk.core.errors import DataError
from ftk.core.types import Conversation, Message
from ftk.data.formats import FORMATS, PREFERENCE_FORMATS, format_named, format_of
from ftk.data.formats.context_question_answer import CONTEXT_QUESTION_ANSWER, Documents, read_documents
from ftk.data.formats.format import Format, FormatError, Reading
from ftk.data.questions import with_an_answer
from ftk.data.retrieval import DEFAULT_RETRIEVAL, Retrieval, laid_out, mixed
from ftk.data.rows import Taken
from ftk.data.settings import Source
from ftk.data.source import SourceReader, SourceRow
from ftk.data.system_message import with_system
from ftk.data.tool_calls import tool_fault


class ConversationReader:
    """Reads the rows of one source as conversations."""

    def __init__(
        self,
        reader: SourceReader,
        retrieval: Retrieval = DEFAULT_RETRIEVAL,
        *,
        group: str | None = None,
        to_be_answered: bool = False,
    ) -> None:
        """`retrieval` says how retrieved documents are shown; rows of one `group`, a column, show them in one order.

        Rows `to_be_answered` need no answer: see `with_an_answer`.

        Raises:
            DataError: the recipe names a format of preference data.
        """
        self._reader, self._retrieval, self._group = reader, retrieval, group
        self._to_be_answered = to_be_answered
        self.source = reader.source
        self.format_name: str | None = None
        if self.source.format in PREFERENCE_FORMATS:
            raise DataError(
                f"format {self.source.format} is of preference data, which task: preference learns from; this task "
                f"learns from conversations: {', '.join(FORMATS)} or module:function",
                place=self.source.source,
            )

    def fingerprint(self) -> str:
        """Digest of all that the rows depend on."""
        return f"{self._reader.fingerprint()}{self._retrieval.model_dump_json()}{self._group or ''}"

    def read(self) -> Iterator[Conversation]:
        """
        Raises:
            DataError: a row does not read, or is of no known format.
        """
        format = None if self.source.format == "auto" else format_named(self.source.format)
        rows = map(with_an_answer, self._reader.rows()) if self._to_be_answered else self._reader.rows()
        for row in rows:
            if format is None:
                format = _format_of(row)
            self.format_name = format.name
            if format is CONTEXT_QUESTION_ANSWER:
                yield from self._with_documents(chain([row], rows))
            else:
                yield _conversation(row, format, self.source)

    def _with_documents(self, rows: Iterable[SourceRow]) -> Iterator[Conversation]:
        """The rows with the documents that each shows, some of which may be other rows'."""
        settings = self._retrieval
        pool: list[str] = []
        if settings.distractors:
            rows = list(rows)
            pool = list(dict.fromkeys(one for row in rows for one in _documents(row).context))
        for row in rows:
            right, wrong = _documents(row)
            conversation = _conversation(row, CONTEXT_QUESTION_ANSWER, self.source)
            question = str(row.columns["question"])
            try:
                shown = mixed(right, wrong, pool, settings=settings, key=self._key(row, question))
            except ValueError as error:
                raise DataError(str(error), place=row.place) from error
            asked, answer = conversation.messages[-2:]
            text = laid_out(shown, question, layout=settings.layout, separator=settings.separator)
            before = conversation.messages[:-2]
            yield replace(
                conversation,
                messages=(*before, {**asked, "content": text}, answer),
                without_context=(*before, {**asked, "content": question}, answer),
            )

    def _key(self, row: SourceRow, question: str) -> str:
        """What the draws of a row depend on beside the seed."""
        if self._group is not None:
            return str(row.columns.get(self._group))
        return f"{row.number}\0{question}"

    def taken(self, num_rows: int) -> Taken:
        """How the source was read; `num_rows` conversations came of it."""
        return Taken(self.source.source, self.format_name or "none", self.source.format == "auto", num_rows)


def check_columns(row: SourceRow, format: Format[Any], *, hint: str = "") -> None:
    """
    Raises:
        DataError: the row lacks a column that the format needs; `hint` is what to do then.
    """
    missing = [column for column in format.needs if column not in row.columns]
    if missing:
        raise DataError(
            f"the row has no column {', '.join(missing)}, which format {format.name} needs; it has "
            f"{', '.join(row.columns)}{hint}",
            place=row.place,
        )


def _format_of(row: SourceRow) -> Format[Reading]:
    format = format_of(row.columns, FORMATS)
    if format is not None:
        return format
    known = "; ".join(f"{one.name}: {', '.join(one.needs)}" for one in FORMATS.values())
    judging = format_of(row.columns, PREFERENCE_FORMATS)
    preference = f"They are of preference data ({judging.name}): task: preference learns from it. " if judging else ""
    raise DataError(
        f"the columns {', '.join(row.columns)} are of no known format ({known}). {preference}Say in the recipe which "
        "column is which (format: question_answer, columns: {question: ..., answer: ...}), or read rows by your own "
        "module:function",
        place=row.place,
    )


def _conversation(row: SourceRow, format: Format[Reading], source: Source) -> Conversation:
    check_columns(row, format)
    try:
        messages, tools = format.read(row.columns)
    except FormatError as error:
        raise DataError(f"the row does not read as {format.name}: {error}", place=row.place) from error
    messages = with_system(messages, source.system)
    _check_answers(messages, place=row.place)
    fault = tool_fault(messages, tools)
    if fault is not None:
        raise DataError(fault, place=row.place)
    return Conversation(tuple(messages), row.number, row.name, row.columns, tuple(tools))


def _documents(row: SourceRow) -> Documents:
    check_columns(row, CONTEXT_QUESTION_ANSWER)
    try:
        return read_documents(row.columns)
    except FormatError as error:
        raise DataError(f"the row does not read as {CONTEXT_QUESTION_ANSWER.name}: {error}", place=row.place) from error


def _check_answers(messages: Sequence[Message], *, place: str) -> None:
    roles = Counter(message["role"] for message in messages)
    if not roles["assistant"]:
        raise DataError(
            f"the row has no answer: its messages are of {', '.join(roles)}, none of assistant", place=place
        )
    for message in messages:
        empty = not str(message["content"]).strip() and not message.get("tool_calls")
        if message["role"] == "assistant" and message.get("train") is not False and empty:
            raise DataError("the answer is empty. Take the row out, or give it an answer", place=place)
