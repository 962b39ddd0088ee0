"""Rows into JSONL, JSON, CSV and Parquet files, by the suffix; a file appears complete, or not at all."""

import csv
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, time
from decimal import Decimal
from pathlib import Path
from typing import IO, Any

from ftk.core.atomic import atomic_file
from ftk.core.errors import DataError
from ftk.data.checks import half_a_character

Write = Callable[[Mapping[str, Any], str], None]
"""Takes a row, and its place as errors name it."""


@contextmanager
def writing_rows(path: Path, *, text_or_list: Collection[str] = ()) -> Iterator[Write]:
    """Write rows one by one to a file of the kind that its suffix says.

    CSV and Parquet have one set of columns, so their rows are kept until the end; a row without one of them has it
    empty. Where they cannot hold a list or an object, they hold its JSON as text, but not in the columns
    `text_or_list`, where that would be read as a text.

    Raises:
        DataError: the file cannot be written, or its kind cannot hold a value.
    """
    try:
        with atomic_file(path) as temporary:
            if path.suffix in (".jsonl", ".json"):
                with temporary.open("w", encoding="utf-8") as file:
                    yield from _writing_json(file, as_list=path.suffix == ".json")
            else:
                rows: list[Mapping[str, Any]] = []
                yield lambda row, place: rows.append(row)
                columns = {column: [row.get(column) for row in rows] for column in _union(rows)}
                write = _write_csv if path.suffix == ".csv" else _write_parquet
                write(temporary, columns, text_or_list=text_or_list, name=str(path))
    except OSError as error:
        raise DataError(f"the file cannot be written: {error.strerror or error}", place=str(path)) from error
    except UnicodeEncodeError as error:
        raise half_a_character(str(path)) from error


@contextmanager
def writing_lines(path: Path) -> Iterator[Callable[[str], None]]:
    """Write lines of text to a file, which appears complete, or not at all.

    Raises:
        DataError: the file cannot be written.
    """
    try:
        with atomic_file(path) as temporary, temporary.open("w", encoding="utf-8") as file:
            yield lambda line: print(line, file=file)
    except OSError as error:
        raise DataError(f"the file cannot be written: {error.strerror or error}", place=str(path)) from error


def as_json(value: Any, *, place: str | None = None, escaped: bool = False) -> str:
    """One line of JSON; times and decimal numbers, which JSON does not know, as text.

    With `escaped` what is not ASCII is spelled by its number, halves of characters too.

    Raises:
        DataError: it holds something else that JSON does not know.
    """
    try:
        line = json.dumps(value, ensure_ascii=escaped, default=_as_text)
        line.encode()
    except TypeError as error:
        raise DataError(f"the row holds a value that JSON cannot: {error}", place=place) from error
    except UnicodeEncodeError as error:
        raise half_a_character(place) from error
    return line


def _writing_json(file: IO[str], *, as_list: bool) -> Iterator[Write]:
    num_rows = 0

    def write(row: Mapping[str, Any], place: str) -> None:
        nonlocal num_rows
        before = ("[\n" if num_rows == 0 else ",\n") if as_list else ""
        file.write(f"{before}{as_json(row, place=place)}{'' if as_list else chr(10)}")
        num_rows += 1

    yield write
    if as_list:
        file.write("\n]\n")


def _write_csv(path: Path, columns: Mapping[str, Sequence[Any]], *, text_or_list: Collection[str], name: str) -> None:
    for column, values in columns.items():
        if column in text_or_list and any(_is_nested(value) for value in values):
            raise _mixed(column, "CSV", name=name)
    with path.open("w", encoding="utf-8", newline="") as file:
        # Its own line ends, \r\n, are also those that it quotes within text.
        writer = csv.writer(file)
        writer.writerow(columns)
        for values in zip(*columns.values(), strict=True):
            writer.writerow([_cell(value) for value in values])


def _write_parquet(
    path: Path, columns: Mapping[str, Sequence[Any]], *, text_or_list: Collection[str], name: str
) -> None:
    import pyarrow
    import pyarrow.parquet

    arrays = {
        column: _array(column, values, is_json=column not in text_or_list, name=name)
        for column, values in columns.items()
    }
    pyarrow.parquet.write_table(pyarrow.table(arrays), path)


def _array(column: str, values: Sequence[Any], *, is_json: bool, name: str) -> Any:
    import pyarrow

    nested = any(_is_nested(value) for value in values)
    if not nested or not any(_has_empty(value) for value in values):
        try:
            return pyarrow.array(values)
        except (pyarrow.ArrowException, OverflowError) as error:
            if not nested:
                kinds = ", ".join(sorted({type(value).__name__ for value in values}))
                raise DataError(
                    f"column {column} holds values of several kinds ({kinds}), and a column of Parquet holds one. "
                    "Write .jsonl",
                    place=name,
                ) from error
    if not is_json:
        raise _mixed(column, "Parquet", name=name)
    return pyarrow.array([None if value is None else as_json(value, place=name) for value in values])


def _mixed(column: str, kind: str, *, name: str) -> DataError:
    return DataError(
        f"column {column} has lists of messages, which {kind} cannot tell from texts. Write .jsonl, or convert to "
        "format messages",
        place=name,
    )


def _cell(value: Any) -> Any:
    if value is None or isinstance(value, str):
        return value
    return as_json(value) if _is_nested(value) or isinstance(value, bool) else value


def _is_nested(value: Any) -> bool:
    return isinstance(value, Mapping | list | tuple)


def _has_empty(value: Any) -> bool:
    """Whether an object without fields lies within, which no column of Parquet can hold."""
    if isinstance(value, Mapping):
        return not value or any(_has_empty(item) for item in value.values())
    return isinstance(value, list | tuple) and any(_has_empty(item) for item in value)


def _union(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(column for row in rows for column in row))


def _as_text(value: Any) -> str:
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, Decimal):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no JSON")
