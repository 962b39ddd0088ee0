"""Rows of JSONL, JSON, CSV and Parquet files, with the line where each begins."""

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

from ftk.core.errors import DataError

Row = dict[str, Any]
Decode = Callable[[bytes, str], bytes]
"""From the bytes of a text file and its name, as errors say it, to UTF-8."""
SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")


def files_at(path: Path, *, name: str) -> list[Path]:
    """The file at `path`, or the data files of the folder there, by name.

    Raises:
        DataError: nothing there, a file of another kind, or a folder without data files.
    """
    if path.is_dir():
        files = sorted(one for one in path.iterdir() if one.suffix in SUFFIXES and not one.name.startswith("."))
        if not files:
            found = ", ".join(sorted(one.name for one in path.iterdir())[:8]) or "nothing"
            raise DataError(f"the folder has no {', '.join(SUFFIXES)} file; found {found}", place=name)
        return files
    if not path.exists():
        raise _missing(path, name=name)
    if path.suffix not in SUFFIXES:
        raise DataError(
            f"a {path.suffix or 'nameless'} file cannot be read, expected {', '.join(SUFFIXES)}", place=name
        )
    return [path]


def read_file(path: Path, *, name: str, decode: Decode | None = None) -> Iterator[tuple[int, Row]]:
    """Line number (in Parquet and a JSON list: row number) from 1, and row, of each row.

    JSONL and Parquet are read piece by piece, whatever their size. With `decode` a text file may be in another
    encoding, and its JSON may have control characters within text.

    Raises:
        DataError: empty, broken or not UTF-8, with the line.
    """
    try:
        if path.suffix == ".parquet" and path.stat().st_size:
            return _read_parquet(path, name=name)
        if path.suffix == ".jsonl" and decode is None:
            return _read_jsonl(_lines(path, name=name), name=name, strict=True)
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"the file cannot be read: {error.strerror or error}", place=name) from error
    if not content.strip():
        raise _empty(name)
    if decode is not None:
        content = decode(content, name)
    content = content.removeprefix(b"\xef\xbb\xbf")
    if path.suffix == ".csv":
        return _read_csv(content, name=name)
    # Many a .json file holds one object a line.
    if path.suffix == ".json" and not content.lstrip().startswith(b"{"):
        return _read_json(content, name=name, strict=decode is None)
    return _read_jsonl(content.split(b"\n"), name=name, strict=decode is None)


def _lines(path: Path, *, name: str) -> Iterator[bytes]:
    """The lines of a file without their ends, read as they are asked for."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file):
                line = line.removesuffix(b"\n")
                yield line if number else line.removeprefix(b"\xef\xbb\xbf")
    except OSError as error:
        raise DataError(f"the file cannot be read: {error.strerror or error}", place=name) from error


def _read_jsonl(lines: Iterable[bytes], *, name: str, strict: bool) -> Iterator[tuple[int, Row]]:
    # json.loads makes a decoder for each call with an option, which takes as long as to decode the row.
    loads: Callable[[str], Any] = json.loads if strict else partial(json.loads, strict=False)
    is_empty = True
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        is_empty = False
        try:
            row = loads(line.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise _not_utf8(f"{name}:{number}", error) from error
        except json.JSONDecodeError as error:
            shown = line[:60].decode("utf-8", "replace")
            raise DataError(f"the line is not JSON ({error.msg}): {shown}", place=f"{name}:{number}") from error
        yield number, _as_row(row, place=f"{name}:{number}")
    if is_empty:
        raise _empty(name)


def _read_json(content: bytes, *, name: str, strict: bool) -> Iterator[tuple[int, Row]]:
    try:
        rows = json.loads(_decode(content, name=name), strict=strict)
    except json.JSONDecodeError as error:
        raise DataError(f"the file is not JSON ({error.msg})", place=f"{name}:{error.lineno}") from error
    if not isinstance(rows, list) or not rows:
        raise DataError("expected a list of objects, or one object a line", place=name)
    for number, row in enumerate(rows, start=1):
        yield number, _as_row(row, place=f"{name}:{number}")


def _read_csv(content: bytes, *, name: str) -> Iterator[tuple[int, Row]]:
    reader = csv.reader(io.StringIO(_decode(content, name=name), newline=""), strict=True)
    line = 1
    try:
        columns = next(reader)
        line = reader.line_num + 1
        for values in reader:
            place, number = f"{name}:{line}", line
            line = reader.line_num + 1
            if not values:
                continue
            if len(values) != len(columns):
                raise DataError(f"the row has {len(values)} values and the header {len(columns)} columns", place=place)
            yield number, dict(zip(columns, values, strict=True))
    except csv.Error as error:
        raise DataError(f"the row is not CSV: {error}", place=f"{name}:{line}") from error


def _read_parquet(path: Path, *, name: str) -> Iterator[tuple[int, Row]]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches():
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"the file is not Parquet, or is broken: {error}", place=name) from error


def _as_row(row: Any, *, place: str) -> Row:
    if not isinstance(row, dict):
        raise DataError(f"the row is {type(row).__name__}, expected an object with columns", place=place)
    return row


def _decode(content: bytes, *, name: str) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise _not_utf8(f"{name}:{line}", error) from error


def _empty(name: str) -> DataError:
    return DataError("the file is empty", place=name)


def _not_utf8(place: str, error: UnicodeDecodeError) -> DataError:
    byte = error.object[error.start]
    return DataError(f"the line is not UTF-8 (byte 0x{byte:02x}). Convert the file to UTF-8", place=place)


def _missing(path: Path, *, name: str) -> DataError:
    folder = path.parent
    if not folder.is_dir():
        return DataError(f"there is no such file: the folder {folder} does not exist", place=name)
    names = [one.name for one in folder.iterdir()]
    near = get_close_matches(path.name, names, n=3)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    return DataError(f"there is no such file in {folder.resolve()}.{hint}", place=name)
