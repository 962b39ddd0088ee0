"""`ftk data convert`: rows of one format into rows of another."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ftk.core.errors import DataError, RecipeError
from ftk.core.types import Conversation
from ftk.data.conversations import ConversationReader
from ftk.data.convert import DEFAULT_POLICY, CannotHold, Policy, convert
from ftk.data.formats import FORMATS
from ftk.data.formats.format import Format, Reading
from ftk.data.settings import Source
from ftk.data.source import reader_of
from ftk.data.write_rows import Write, writing_rows
from ftk.runs.data_output import check_output_file


@dataclass(frozen=True)
class Conversion:
    """What came of a conversion."""

    output: str
    source_format: str
    """Of the input."""
    format: str
    """Of the output."""
    num_rows: int
    """Rows read."""
    num_rows_written: int
    lost: dict[str, int]
    """How many rows lost what, by what it is."""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def convert_data(
    input: str,
    to: str,
    out: str,
    *,
    format: str = "auto",
    columns: Mapping[str, str] | None = None,
    policy: Policy = DEFAULT_POLICY,
    keep_columns: bool = False,
    force: bool = False,
) -> Conversion:
    """Write the rows of `input` as rows of format `to` into a file of the kind that the suffix of `out` says.

    With `keep_columns` columns that are no part of either format go along.

    Raises:
        FtkError: the input does not read, the output cannot be written, or the format cannot hold a row.
    """
    target, path = _target(to), Path(out)
    reader = _reader(input, format, dict(columns or {}))
    files = reader_of(reader.source).files
    check_output_file(path, files, force=force)
    job = _Job(reader, target, policy, keep_columns=keep_columns)
    with writing_rows(path, text_or_list=target.text_or_list) as write:
        job.run(write)
    return Conversion(
        output=out,
        source_format=reader.format_name or "none",
        format=target.name,
        num_rows=job.num_rows,
        num_rows_written=job.num_rows_written,
        lost=dict(job.lost.most_common()),
    )


class _Job:
    """Counts as it converts row after row."""

    def __init__(
        self, reader: ConversationReader, target: Format[Reading], policy: Policy, *, keep_columns: bool
    ) -> None:
        self.reader, self.target, self.policy, self.keep_columns = reader, target, policy, keep_columns
        self.lost: Counter[str] = Counter()
        self.num_rows = self.num_rows_written = 0
        self._refused: list[tuple[str, CannotHold]] = []

    def run(self, write: Write) -> None:
        """
        Raises:
            DataError: rows are refused, after all of them are counted; or none is left.
        """
        for conversation in self.reader.read():
            self.num_rows += 1
            place = f"{conversation.source}:{conversation.row}"
            for row in self._converted(conversation, place):
                write(row, place)
                self.num_rows_written += 1
        if self._refused:
            raise self._refusal()
        if not self.num_rows_written:
            raise DataError(f"all {self.num_rows:,} rows would be left out", place=self.reader.source.source)

    def _converted(self, conversation: Conversation, place: str) -> Iterator[dict[str, Any]]:
        reading = Reading(list(conversation.messages), list(conversation.tools))
        try:
            rows = convert(reading, self.target, self.policy, self.lost)
        except CannotHold as error:
            self._refused.append((place, error))
            return
        beside = self._beside(conversation.columns)
        if not self.keep_columns:
            self.lost.update(f"column {column}" for column in beside)
            beside = {}
        for row in rows:
            yield {**row, **{column: value for column, value in beside.items() if column not in row}}

    def _beside(self, columns: Mapping[str, Any]) -> dict[str, Any]:
        """What is no part of the row's own format; a function of the user's own may have read any column."""
        assert self.reader.format_name is not None
        format, source = FORMATS.get(self.reader.format_name), self.reader.source
        if format is None:
            return dict(columns) if self.keep_columns else {}
        read = {*format.needs, *format.takes, *source.columns.values()}
        return {column: value for column, value in columns.items() if column not in read}

    def _refusal(self) -> DataError:
        reasons = Counter((error.what, error.remedy) for _, error in self._refused)
        told = "; ".join(f"{number:,} with {what} ({remedy})" for (what, remedy), number in reasons.most_common(5))
        return DataError(
            f"format {self.target.name} cannot hold {len(self._refused):,} of {self.num_rows:,} rows, of which this is "
            f"the first: {told}. Nothing was written",
            place=self._refused[0][0],
        )


def _target(name: str) -> Format[Reading]:
    written = {one.name: one for one in FORMATS.values() if one.writer is not None}
    if name not in written:
        near = get_close_matches(name, written, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise RecipeError(f"there is no format {name} to write, expected {', '.join(written)}.{hint}", place="--to")
    return written[name]


def _reader(input: str, format: str, columns: dict[str, str]) -> ConversationReader:
    try:
        source = Source(source=input, format=format, columns=columns)
    except ValidationError as error:
        raise RecipeError(str(error.errors()[0]["msg"]).removeprefix("Value error, "), place="--format") from error
    return ConversationReader(reader_of(source))
