"""One source of a recipe: which files or hub rows it means, and how they read."""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ftk.core.errors import DataError
from ftk.data.files import SUFFIXES, Decode, files_at, read_file
from ftk.data.formats.function import function_source
from ftk.data.hub import HubRows
from ftk.data.settings import Source
from ftk.data.split import parse_split

SHIPPED = {
    f"ftk://{task}/{part}": Path(__file__).parent / task / f"{part}.jsonl"
    for task, parts in (
        ("orders", ("train", "eval", "preference_train", "preference_eval")),
        ("contacts", ("train", "eval")),
        ("events", ("train", "eval")),
        ("documents", ("train", "eval", "bias")),
    )
    for part in parts
}
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


class SourceRow(NamedTuple):
    """One row as read, with its columns as the recipe maps them."""

    number: int
    """Its line or row in the file, from 1."""
    name: str
    """The file or data set, as errors name it."""
    columns: Mapping[str, Any]

    @property
    def place(self) -> str:
        return f"{self.name}:{self.number}"


class SourceReader:
    """Reads one source of a recipe."""

    def __init__(self, source: Source, parts: Sequence[tuple[str, Path]] | HubRows) -> None:
        self.source = source
        self._parts = parts

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that it reads; none of a data set on the hub."""
        return () if isinstance(self._parts, HubRows) else tuple(path for _, path in self._parts)

    def rows(self, *, decode: Decode | None = None) -> Iterator[SourceRow]:
        """The rows in their order; with `decode` of text files in any encoding.

        Raises:
            DataError: a row does not read, or there is none.
        """
        number = None
        for number, row, name in self._rows(decode):
            yield SourceRow(number, name, _rename(row, self.source.columns, place=f"{name}:{number}"))
        if number is None:
            raise DataError("there are no rows", place=self.source.source)

    def fingerprint(self) -> str:
        digest = hashlib.sha256(self.source.model_dump_json(exclude={"source", "weight"}).encode())
        if ":" in self.source.format:
            digest.update(function_source(self.source.format))
        if isinstance(self._parts, HubRows):
            digest.update(self._parts.fingerprint().encode())
            return digest.hexdigest()
        for name, path in self._parts:
            digest.update(name.encode())
            try:
                with path.open("rb") as file:
                    digest.update(hashlib.file_digest(file, "sha256").digest())
            except OSError as error:
                raise DataError(f"the file cannot be read: {error.strerror or error}", place=name) from error
        return digest.hexdigest()

    def _rows(self, decode: Decode | None) -> Iterator[tuple[int, Mapping[str, Any], str]]:
        if isinstance(self._parts, HubRows):
            return ((number, row, self.source.source) for number, row in self._parts)
        rows = (
            (number, row, name)
            for name, path in self._parts
            for number, row in read_file(path, name=name, decode=decode)
        )
        return self._slice(rows)

    def _slice(
        self, rows: Iterable[tuple[int, Mapping[str, Any], str]]
    ) -> Iterator[tuple[int, Mapping[str, Any], str]]:
        split = parse_split(self.source.split or "train", place=self.source.source)
        if split.is_whole:
            return iter(rows)
        everything = list(rows)
        start, stop = split.bounds(len(everything))
        if start == stop:
            raise DataError(f"split {self.source.split} takes none of {len(everything)} rows", place=self.source.source)
        return iter(everything[start:stop])


def reader_of(source: Source) -> SourceReader:
    """The reader of what a source means: data that ships with ftk, a file, a folder, or an id on the hub.

    Raises:
        DataError: a source is missing, of another kind, or a folder without files.
    """
    name = source.source
    if name.startswith("ftk://"):
        if name not in SHIPPED:
            raise DataError(f"there is no such data set in ftk, expected {', '.join(SHIPPED)}", place=name)
        return _file_reader(source, [(name, SHIPPED[name])])
    path = Path(name).expanduser()
    if path.exists() or not _may_be_hub_id(name):
        files = files_at(path, name=name)
        return _file_reader(source, [(str(Path(name) / file.name) if path.is_dir() else name, file) for file in files])
    return SourceReader(
        source, HubRows(name, subset=source.subset, split=source.split or "train", revision=source.revision)
    )


def _file_reader(source: Source, parts: Sequence[tuple[str, Path]]) -> SourceReader:
    for field in ("subset", "revision"):
        if getattr(source, field) is not None:
            raise DataError(f"{field} is for data sets on the hub, and this is a file or folder", place=source.source)
    split = parse_split(source.split or "train", place=source.source)
    if split.name != "train":
        raise DataError(
            f"a file has no split {split.name!r}; expected train or a slice such as train[:95%]", place=source.source
        )
    return SourceReader(source, parts)


def _may_be_hub_id(name: str) -> bool:
    return _HUB_ID.fullmatch(name) is not None and not name.startswith(".") and Path(name).suffix not in SUFFIXES


def _rename(row: Mapping[str, Any], columns: Mapping[str, str], *, place: str) -> Mapping[str, Any]:
    missing = [column for column in columns.values() if column not in row]
    if missing:
        raise DataError(
            f"data columns: there is no column {', '.join(missing)}; the row has {', '.join(row)}", place=place
        )
    return {**row, **{part: row[column] for part, column in columns.items()}} if columns else row
