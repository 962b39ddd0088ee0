"""The rows of some sources, and how they were read."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import islice
from typing import Protocol, TypeVar, overload

from ftk.core.types import Comparison, Conversation
from ftk.data.settings import Source

RowT = TypeVar("RowT")
RowT_co = TypeVar("RowT_co", covariant=True)


@dataclass(frozen=True)
class Taken:
    """How one source was read."""

    source: str
    format: str
    found: bool
    """Whether the format was found from the columns, and not named."""
    num_rows: int
    gave: str = ""
    """What became of the rows, where each is not one example."""

    def __str__(self) -> str:
        how = "found from the columns" if self.found else "as named"
        return f"{self.source}: {self.num_rows:,} rows, format {self.format} ({how}){self.gave and f': {self.gave}'}"


class Reader(Protocol[RowT_co]):
    """Reads one source."""

    source: Source
    format_name: str | None
    """The format of its rows, once one was looked at."""

    def fingerprint(self) -> str:
        """Digest of all that the rows depend on."""

    def read(self) -> Iterator[RowT_co]:
        """The rows in their order."""

    def taken(self, num_rows: int) -> Taken:
        """How the source was read; `num_rows` came of it."""


class Rows(Sequence[RowT]):
    """The rows of some sources, read when they are first looked at.

    Their `fingerprint` is known without that, from the bytes of the files, so that what was rendered from them before
    is found in the time it takes to read them.
    """

    def __init__(self, readers: Sequence[Reader[RowT]], *, role: str) -> None:
        """`role` says in messages what the rows are for, such as `data.train`."""
        self.role = role
        self._readers = readers

    @cached_property
    def fingerprint(self) -> str:
        """Digest of all that these rows depend on.

        Raises:
            DataError: a file cannot be read, or the hub cannot be reached.
        """
        digest = hashlib.sha256()
        for reader in self._readers:
            digest.update(reader.fingerprint().encode())
        return digest.hexdigest()

    @cached_property
    def _read(self) -> list[list[RowT]]:
        return [list(reader.read()) for reader in self._readers]

    @cached_property
    def _rows(self) -> list[RowT]:
        return [row for rows in self._read for row in rows]

    @property
    def source_numbers(self) -> list[int]:
        """For each row, which source of the recipe it came from, from 0."""
        return [number for number, rows in enumerate(self._read) for _ in rows]

    @property
    def weights(self) -> tuple[float, ...] | None:
        """Weight of each source; None where no source has one."""
        given = [reader.source.weight for reader in self._readers]
        return tuple(weight or 1.0 for weight in given) if any(given) else None

    @property
    def taken(self) -> tuple[Taken, ...]:
        """Which format was taken for each source."""
        return tuple(reader.taken(len(rows)) for reader, rows in zip(self._readers, self._read, strict=True))

    @property
    def formats(self) -> dict[str, str]:
        """Format by source, of the sources that were looked at so far."""
        return {reader.source.source: reader.format_name for reader in self._readers if reader.format_name}

    def head(self, num_rows: int) -> list[RowT]:
        """The first rows, without reading on."""
        rows = (row for reader in self._readers for row in reader.read())
        return list(islice(rows, num_rows))

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> RowT: ...
    @overload
    def __getitem__(self, index: slice) -> list[RowT]: ...
    def __getitem__(self, index: int | slice) -> RowT | list[RowT]:
        return self._rows[index]

    def __iter__(self) -> Iterator[RowT]:
        return iter(self._rows)


def fingerprint_of(rows: Sequence[Conversation] | Sequence[Comparison]) -> str:
    """Digest of what rows hold, from their files where that is known."""
    if isinstance(rows, Rows):
        return rows.fingerprint
    digest = hashlib.sha256()
    for one in rows:
        what = {part.name: getattr(one, part.name) for part in fields(one) if part.name != "columns"}
        digest.update(json.dumps(what, ensure_ascii=False, sort_keys=True, default=repr).encode())
    return digest.hexdigest()
