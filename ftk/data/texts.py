"""Plain text of some sources, document by document, whatever its size."""

import hashlib
import sysconfig
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Protocol

from ftk.core.errors import DataError
from ftk.core.types import TextBlock
from ftk.data.checks import check_characters
from ftk.data.files import SUFFIXES, files_at
from ftk.data.settings import Source
from ftk.data.source import SourceReader, SourceRow, reader_of
from ftk.data.split import parse_split
from ftk.data.text_files import (
    TEXT_SUFFIXES,
    blocks_of,
    count_documents,
    num_lines,
    read_documents,
    text_files_at,
    why_unread,
)

STDLIB = "ftk://stdlib"
"""The sources of Python's standard library, as they are installed here: general text without a download."""
_NOT_OF_STDLIB = frozenset({"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "turtledemo"})


class TextReader(Protocol):
    """Reads one source as texts."""

    source: Source

    def fingerprint(self) -> str:
        """Digest of all that the texts depend on."""

    def blocks(self, left_out: Counter[str]) -> Iterator[TextBlock]:
        """The documents in their order, long ones in several blocks; what is left out is counted by its reason."""


class Texts:
    """The texts of some sources, read anew each time they are looked at and never held as a whole."""

    def __init__(self, readers: Sequence[TextReader], *, role: str) -> None:
        """`role` says in messages what the texts are for, such as `data.train`."""
        self.readers = readers
        self.role = role

    @cached_property
    def fingerprint(self) -> str:
        """Digest of all that these texts depend on, from the bytes of their files.

        Raises:
            DataError: a file cannot be read, or the hub cannot be reached.
        """
        return hashlib.sha256("".join(reader.fingerprint() for reader in self.readers).encode()).hexdigest()

    @property
    def weights(self) -> tuple[float, ...] | None:
        """Weight of each source; None where no source has one."""
        given = [reader.source.weight for reader in self.readers]
        return tuple(weight or 1.0 for weight in given) if any(given) else None


def read_texts(sources: Sequence[Source], *, role: str = "data") -> Texts:
    """The texts of `sources`, each source once and in its own order; weights are for `TrainBatches`.

    Raises:
        DataError: now, a source is missing; when texts are first looked at, one does not read.
    """
    return Texts([_reader_of(source) for source in sources], role=role)


def _reader_of(source: Source) -> TextReader:
    path = Path(source.source).expanduser()
    if source.source == STDLIB:
        return FileTexts(source, Path(sysconfig.get_path("stdlib")), _stdlib_files(source))
    if path.is_dir() and (source.glob or not _data_files(path)):
        patterns = source.glob or tuple(f"**/*{suffix}" for suffix in TEXT_SUFFIXES)
        return FileTexts(source, path, text_files_at(path, patterns, name=source.source))
    if source.glob:
        raise DataError("glob is for folders, and this is none", place=source.source)
    if path.is_file() and path.suffix not in SUFFIXES:
        return FileTexts(source, path, [path])
    if path.suffix in TEXT_SUFFIXES:
        # No data set on the hub is called so.
        files_at(path, name=source.source)
    if source.separator is not None:
        raise DataError("separator is for files of plain text, and these are rows", place=source.source)
    return RowTexts(reader_of(source))


class FileTexts:
    """Files of plain text: each a document, or several with a separator between."""

    def __init__(self, source: Source, root: Path, files: Sequence[Path]) -> None:
        """
        Args:
            root: the folder that the source names, or its only file.

        Raises:
            DataError: settings that files do not have.
        """
        self.source = source
        self._root = root
        self._files = files
        for field in ("subset", "revision", "columns"):
            if getattr(source, field):
                raise DataError(f"{field} is for rows, and this is plain text", place=source.source)
        self._split = parse_split(source.split or "train", place=source.source)
        if self._split.name != "train":
            raise DataError(
                f"a file has no split {self._split.name!r}; expected train or a slice such as train[:95%]",
                place=source.source,
            )

    def fingerprint(self) -> str:
        settings = self.source.model_dump_json(include={"separator", "split", "limit"})
        digest = hashlib.sha256(settings.encode())
        for path in self._files:
            digest.update(self._name(path).encode() + b"\0")
            try:
                with path.open("rb") as file:
                    digest.update(hashlib.file_digest(file, "sha256").digest())
            except OSError as error:
                raise DataError(
                    f"the file cannot be read: {error.strerror or error}", place=self._name(path)
                ) from error
        return digest.hexdigest()

    def blocks(self, left_out: Counter[str]) -> Iterator[TextBlock]:
        """
        Raises:
            DataError: the only file is no text, no file is, or the slice takes nothing.
        """
        files = []
        for path in self._files:
            reason = why_unread(path, name=self._name(path))
            if reason is None:
                files.append(path)
                continue
            if path == self._root:
                raise DataError(f"the file is {reason}; expected text in UTF-8", place=self.source.source)
            left_out[f"{reason} files"] += 1
        if not files:
            reasons = ", ".join(f"{number} are {reason.removesuffix(' files')}" for reason, number in left_out.items())
            raise DataError(f"none of its {len(self._files)} files is text: {reasons}", place=self.source.source)
        if self._split.is_whole:
            return self._read(files)
        if files == [self._root] and self.source.separator is None:
            start, stop = self._split.bounds(num_lines(self._root))
            sliced = self._read(files, lines=(start, stop))
        else:
            start, stop = self._split.bounds(count_documents(self._read(files)))
            sliced = _documents(self._read(files), start, stop)
        first = next(sliced, None)
        if first is None:
            raise DataError(f"split {self.source.split} takes nothing of it", place=self.source.source)
        return _with_first(first, sliced)

    def _read(self, files: Sequence[Path], *, lines: tuple[int, int] | None = None) -> Iterator[TextBlock]:
        for path in files:
            yield from read_documents(path, name=self._name(path), separator=self.source.separator, lines=lines)

    def _name(self, path: Path) -> str:
        if path == self._root:
            return self.source.source
        return f"{self.source.source.rstrip('/')}/{path.relative_to(self._root).as_posix()}"


class RowTexts:
    """Rows of a data file or of a data set on the hub: each a document, in the column `text`."""

    def __init__(self, reader: SourceReader) -> None:
        self.source = reader.source
        self._reader = reader

    def fingerprint(self) -> str:
        return self._reader.fingerprint()

    def rows(self) -> Iterator[SourceRow]:
        """The rows themselves, whatever their columns.

        Raises:
            DataError: a row does not read, or there is none.
        """
        return self._reader.rows()

    def blocks(self, left_out: Counter[str]) -> Iterator[TextBlock]:
        """
        Raises:
            DataError: a row does not read, has no column `text`, or something else than text there.
        """
        for row in self._reader.rows():
            if "text" not in row.columns:
                raise DataError(
                    f"the row has no column text; it has {', '.join(row.columns)}. Say which one holds it, such as "
                    "columns: {text: content}",
                    place=row.place,
                )
            text = row.columns["text"]
            if text is not None and not isinstance(text, str):
                raise DataError(f"the column text is {type(text).__name__}, expected text", place=row.place)
            if not text or not text.strip():
                left_out["empty rows"] += 1
                continue
            check_characters(text, place=row.place)
            yield from blocks_of([text], source=row.name, first_row=row.number)


def _stdlib_files(source: Source) -> list[Path]:
    folder = Path(sysconfig.get_path("stdlib"))
    files = text_files_at(folder, source.glob or ("**/*.py",), name=source.source)
    return [path for path in files if _NOT_OF_STDLIB.isdisjoint(path.relative_to(folder).parts)]


def _data_files(folder: Path) -> bool:
    return any(path.suffix in SUFFIXES and not path.name.startswith(".") for path in folder.iterdir())


def first_documents(blocks: Iterator[TextBlock], num_documents: int) -> Iterator[TextBlock]:
    """The blocks of the first documents, without reading on."""
    return _documents(blocks, 0, num_documents)


def _documents(blocks: Iterator[TextBlock], start: int, stop: int) -> Iterator[TextBlock]:
    """The blocks of documents `start` to `stop`, from 0."""
    number = 0
    for block in blocks:
        if number >= stop:
            return
        if number >= start:
            yield block
        number += block.ends


def _with_first(first: TextBlock, rest: Iterator[TextBlock]) -> Iterator[TextBlock]:
    yield first
    yield from rest
