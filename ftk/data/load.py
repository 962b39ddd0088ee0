"""From the sources of a recipe to conversations."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import overload

from ftk.core.types import Conversation
from ftk.data.settings import Source
from ftk.data.source import reader_of


@dataclass(frozen=True)
class Taken:
    """How one source was read."""

    source: str
    format: str
    found: bool
    """Whether the format was found from the columns, and not named."""
    num_rows: int

    def __str__(self) -> str:
        how = "found from the columns" if self.found else "as named"
        return f"{self.source}: {self.num_rows:,} rows, format {self.format} ({how})"


class Conversations(Sequence[Conversation]):
    """The rows of some sources, read when they are first looked at.

    Their `fingerprint` is known without that, from the bytes of the files, so that what was rendered from them before
    is found in the time it takes to read them.
    """

    def __init__(self, sources: Sequence[Source], *, role: str = "data") -> None:
        """
        Raises:
            DataError: a source is missing, of another kind, or empty of files.
        """
        self.role = role
        self._readers = [reader_of(source) for source in sources]

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
    def _read(self) -> list[list[Conversation]]:
        return [list(reader.read()) for reader in self._readers]

    @cached_property
    def _rows(self) -> list[Conversation]:
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
        return tuple(
            Taken(reader.source.source, reader.format_name or "none", reader.source.format == "auto", len(rows))
            for reader, rows in zip(self._readers, self._read, strict=True)
        )

    @property
    def formats(self) -> dict[str, str]:
        """Format by source, of the sources that were looked at so far."""
        return {reader.source.source: reader.format_name for reader in self._readers if reader.format_name}

    def head(self, num_rows: int) -> list[Conversation]:
        """The first rows, without reading on."""
        rows = (row for reader in self._readers for row in reader.read())
        return list(islice(rows, num_rows))

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Conversation: ...
    @overload
    def __getitem__(self, index: slice) -> list[Conversation]: ...
    def __getitem__(self, index: int | slice) -> Conversation | list[Conversation]:
        return self._rows[index]

    def __iter__(self) -> Iterator[Conversation]:
        return iter(self._rows)


def read_conversations(sources: Sequence[Source], *, role: str = "data") -> Conversations:
    """The rows of `sources`, each source once and in its own order; weights are for `TrainBatches`.

    `role` says in messages what they are for, such as `data.train`.

    Raises:
        DataError: now, a source is missing; when rows are first looked at, one does not read, with its file and line.
    """
    return Conversations(sources, role=role)


def fingerprint_of(conversations: Sequence[Conversation]) -> str:
    """Digest of what conversations hold, from their files where that is known."""
    if isinstance(conversations, Conversations):
        return conversations.fingerprint
    digest = hashlib.sha256()
    for one in conversations:
        what = [one.messages, one.tools, one.source, one.row]
        digest.update(json.dumps(what, ensure_ascii=False, sort_keys=True, default=repr).encode())
    return digest.hexdigest()
