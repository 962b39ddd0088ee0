"""From the sources of a recipe to comparisons of answers."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, pairwise
from typing import NamedTuple, TypeAlias

from ftk.core.errors import DataError
from ftk.core.types import Comparison, Conversation, Message
from ftk.data.conversations import check_columns
from ftk.data.formats import FORMATS, PREFERENCE_FORMATS, format_of, preference_format_named
from ftk.data.formats.format import Format, FormatError
from ftk.data.formats.judgement import Answer, Judgement, unmarked
from ftk.data.rows import Rows, Taken
from ftk.data.settings import Source
from ftk.data.shared_prompt import check_compared, shared_length
from ftk.data.source import SourceReader, SourceRow, reader_of
from ftk.data.system_message import with_system
from ftk.data.tool_calls import tool_fault

Comparisons: TypeAlias = Rows[Comparison]

KTO = "For rows of one completion and a label, good or bad, take task: {name: preference, loss: kto}"


class _Judged(NamedTuple):
    """An answer, and the row it stands in."""

    answer: Answer
    tools: list[dict[str, object]]
    row: SourceRow


class ComparisonReader:
    """Reads the rows of one source as comparisons."""

    def __init__(self, reader: SourceReader, *, unpaired: bool) -> None:
        """With `unpaired` each comparison is one completion with its worth: a pair becomes two.

        Raises:
            DataError: the recipe names a format of conversations.
        """
        self._reader = reader
        self._unpaired = unpaired
        self.source = reader.source
        self.format_name: str | None = None
        self._num_rows = self._num_without = 0
        """Rows read; prompts whose answers gave no pair."""
        if self.source.format in FORMATS:
            raise DataError(
                f"format {self.source.format} is of conversations, which have no rejected answer. Preference data is "
                f"of format {', '.join(PREFERENCE_FORMATS)} or module:function. {KTO}",
                place=self.source.source,
            )

    def fingerprint(self) -> str:
        """Digest of all that the rows depend on."""
        return hashlib.sha256(f"{self._reader.fingerprint()} unpaired={self._unpaired}".encode()).hexdigest()

    def read(self) -> Iterator[Comparison]:
        """Rows in their order; those that only their prompts join come after, by their first row.

        Raises:
            DataError: a row does not read, is of no known format, compares nothing, or has no rejected answer.
        """
        self._num_rows = self._num_without = 0
        num_given = 0
        for comparison in self._comparisons():
            num_given += 1
            yield comparison
        if not num_given:
            raise DataError(
                "no prompt has two answers of different worth, so there is nothing to compare", place=self.source.source
            )

    def _comparisons(self) -> Iterator[Comparison]:
        by_prompt: dict[str, list[_Judged]] = {}
        for row, judgement in self._judgements():
            self._num_rows += 1
            judged = [_Judged(_with_system(one, self.source), judgement.tools, row) for one in judgement.answers]
            for one in judged:
                _check_not_empty(one)
                fault = tool_fault((*one.answer.prompt, *one.answer.completion), judgement.tools)
                if fault is not None:
                    raise DataError(fault, place=row.place)
            if judgement.desirable is not None:
                yield self._single(judged[0], desirable=judgement.desirable)
            elif len(judged) == 1:
                by_prompt.setdefault(_prompt_key(judged[0].answer.prompt, judgement.tools), []).append(judged[0])
            else:
                yield from self._compare(judged)
        for group in by_prompt.values():
            yield from self._compare(group)

    def taken(self, num_rows: int) -> Taken:
        """How the source was read; `num_rows` comparisons came of it."""
        gave = f"{num_rows:,} {'completions' if self._unpaired else 'pairs'}" if num_rows != self._num_rows else ""
        if self._num_without:
            gave += f"; {self._num_without:,} prompts gave none: no two answers of different worth"
        found = self.source.format == "auto"
        return Taken(self.source.source, self.format_name or "none", found, self._num_rows, gave)

    def _judgements(self) -> Iterator[tuple[SourceRow, Judgement]]:
        format = None if self.source.format == "auto" else preference_format_named(self.source.format)
        for row in self._reader.rows():
            if format is None:
                format = _format_of(row)
            self.format_name = format.name
            check_columns(row, format, hint="" if self._unpaired else f". {KTO}")
            try:
                judgement = format.read(row.columns)
            except FormatError as error:
                raise DataError(f"the row does not read as {format.name}: {error}", place=row.place) from error
            if judgement.desirable is not None and not self._unpaired:
                raise DataError(
                    "the row has one completion with a label, and no rejected answer to compare it with. Take a loss "
                    "that learns from such rows, task: {name: preference, loss: kto}, or give pairs: prompt, chosen, "
                    "rejected",
                    place=row.place,
                )
            yield row, judgement

    def _compare(self, judged: Sequence[_Judged]) -> Iterator[Comparison]:
        """The pairs that answers of different ratings give."""
        pairs = _pairs(judged, which=self.source.pairs)
        self._num_without += not pairs
        for better, worse in pairs:
            pair = _pair(better, worse)
            if not self._unpaired:
                yield pair
                continue
            for one, completion, desirable in zip((better, worse), pair.completions, (True, False), strict=True):
                yield _comparison(one, pair.prompt, (completion,), desirable=desirable)

    @staticmethod
    def _single(one: _Judged, *, desirable: bool) -> Comparison:
        _check_compared(one, one.answer.completion)
        return _comparison(one, one.answer.prompt, (one.answer.completion,), desirable=desirable)


def read_comparisons(sources: Sequence[Source], *, role: str = "data", unpaired: bool) -> Comparisons:
    """The rows of `sources`, each source once and in its own order: pairs, or completions by themselves.

    `role` says in messages what they are for, such as `data.train`.

    Raises:
        DataError: now, a source is missing; when rows are first looked at, one does not read, with its file and line.
    """
    return Rows([ComparisonReader(reader_of(source), unpaired=unpaired) for source in sources], role=role)


def conversations(comparisons: Sequence[Comparison]) -> list[Conversation]:
    """Each prompt with its good answer, for what is measured on generated answers.

    A prompt counts once, with the first of its good answers, which of a ranked list is the best one; a prompt with bad
    answers alone is left out.
    """
    found: dict[str, Conversation] = {}
    for one in comparisons:
        if one.desirable is not False:
            conversation = Conversation((*one.prompt, *one.completions[0]), one.row, one.source, one.columns, one.tools)
            found.setdefault(prompt_key(one), conversation)
    return list(found.values())


def prompt_key(comparison: Comparison) -> str:
    """Equal for comparisons of one prompt."""
    return _prompt_key(comparison.prompt, comparison.tools)


def _prompt_key(prompt: Sequence[Message], tools: Sequence[Mapping[str, object]]) -> str:
    return json.dumps([unmarked(prompt), tools], sort_keys=True, default=repr)


def _format_of(row: SourceRow) -> Format[Judgement]:
    format = format_of(row.columns, PREFERENCE_FORMATS)
    if format is not None:
        return format
    known = "; ".join(f"{one.name}: {', '.join(one.needs)}" for one in PREFERENCE_FORMATS.values())
    rejected = "" if "rejected" in row.columns else "there is no column rejected: "
    raise DataError(
        f"{rejected}the columns {', '.join(row.columns)} are of no known format of preference data ({known}). Say in "
        "the recipe which column is which (format: pairs, columns: {prompt: ..., chosen: ..., rejected: ...}), or read "
        f"rows by your own module:function. {KTO}",
        place=row.place,
    )


def _with_system(answer: Answer, source: Source) -> Answer:
    return answer._replace(prompt=with_system(answer.prompt, source.system))


def _check_not_empty(one: _Judged) -> None:
    name, completion = one.answer.name, one.answer.completion
    if not completion:
        raise DataError(
            f"the row has no answer: {name} ends with {one.answer.prompt[-1]['role']}, expected assistant",
            place=one.row.place,
        )
    for message in completion:
        empty = not str(message["content"]).strip() and not message.get("tool_calls")
        if message["role"] == "assistant" and message.get("train") is not False and empty:
            raise DataError(f"{name} is empty. Take the row out, or give it an answer", place=one.row.place)


def _pairs(judged: Sequence[_Judged], *, which: str) -> list[tuple[_Judged, _Judged]]:
    """The better and the worse of each pair, the best first; equal ratings give none."""
    ordered = sorted(judged, key=lambda one: -one.answer.rating)
    if which == "best_worst":
        found = [(ordered[0], ordered[-1])] if ordered else []
    elif which == "adjacent":
        found = list(pairwise(ordered))
    else:
        found = list(combinations(ordered, 2))
    return [(better, worse) for better, worse in found if better.answer.rating > worse.answer.rating]


def _pair(better: _Judged, worse: _Judged) -> Comparison:
    """
    Raises:
        DataError: both are equal, answer different prompts, or are not compared whole.
    """
    who = f"{better.answer.name} and {worse.answer.name}"
    if better.row is not worse.row:
        who = f"the answers of rows {better.row.number} and {worse.row.number}"
    try:
        border = shared_length(better.answer, worse.answer, who=who)
    except FormatError as error:
        raise DataError(str(error), place=better.row.place) from error
    chosen, rejected = better.answer.messages, worse.answer.messages
    for one, messages in ((better, chosen), (worse, rejected)):
        _check_compared(one, messages[border:])
    return _comparison(better, chosen[:border], (chosen[border:], rejected[border:]), desirable=None)


def _check_compared(one: _Judged, completion: Sequence[Message]) -> None:
    try:
        check_compared(one.answer.name, completion)
    except FormatError as error:
        raise DataError(str(error), place=one.row.place) from error


def _comparison(
    one: _Judged,
    prompt: Sequence[Message],
    completions: Sequence[Sequence[Message]],
    *,
    desirable: bool | None,
) -> Comparison:
    return Comparison(
        prompt=tuple(prompt),
        completions=tuple(tuple(completion) for completion in completions),
        desirable=desirable,
        row=one.row.number,
        source=one.row.name,
        columns=one.row.columns,
        tools=tuple(one.tools),
    )
