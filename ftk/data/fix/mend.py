"""Rows mended one by one, with a record of every change."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ftk.data.fix import TEXT_FIXES
from ftk.data.fix.duplicates import key_of
from ftk.data.fix.empty import is_empty
from ftk.data.fix.text_fix import Text, TextFix
from ftk.data.fix.texts import any_format_of, with_texts
from ftk.data.formats.format import Format, FormatError
from ftk.data.source import SourceRow


@dataclass(frozen=True)
class Change:
    """One line of the log."""

    row: int | None
    """Line or row of the file, from 1; None where the whole file changed."""
    source: str
    kind: str
    """The name of the fix."""
    before: Any
    """The text, or the whole row where it goes."""
    after: Any
    """The mended text; None where the row goes."""
    where: str | None = None
    """Where the text stands in the row, such as `messages[1].content`."""
    same_as: str | None = None
    """The row that a duplicate repeats, as `file:row`."""

    def as_json(self) -> dict[str, Any]:
        """Without what is not told of this kind."""
        told = asdict(self)
        return {key: value for key, value in told.items() if value is not None or key in ("row", "before", "after")}


class Mender:
    """Mends row after row; remembers the rows it has seen, as 16 bytes each, and counts its changes."""

    def __init__(self, kinds: Sequence[str]) -> None:
        """`kinds` are names of fixes, which are applied in the order of the registry."""
        self._texts: list[TextFix] = [fix for name, fix in TEXT_FIXES.items() if name in kinds]
        self._kinds = frozenset(kinds)
        self._seen: dict[bytes, str] = {}
        self.counts: Counter[str] = Counter()
        """Changes by kind."""
        self.unread: list[str] = []
        """Places of rows that do not read, of which no one can tell whether they are empty."""

    def mend(self, row: SourceRow) -> tuple[dict[str, Any] | None, list[Change]]:
        """The row as it shall be, or None where it goes; and what changed."""
        format = any_format_of(row.columns)
        changes: list[Change] = []

        def change(text: Text, where: str) -> str:
            value = text.value
            for fix in self._texts:
                after = fix.fix(text._replace(value=value))
                if after != value:
                    changes.append(Change(row.number, row.name, fix.name, value, after, where))
                value = after
            return value

        mended = with_texts(row.columns, format, change)
        removal = self._removal(mended, row, format)
        if removal is not None:
            changes.append(removal)
        self.counts.update(one.kind for one in changes)
        return mended if removal is None else None, changes

    def _removal(self, mended: Mapping[str, Any], row: SourceRow, format: Format[Any] | None) -> Change | None:
        if "empty" in self._kinds and self._is_empty(mended, row, format):
            return Change(row.number, row.name, "empty", mended, None)
        if "duplicates" in self._kinds:
            first = self._seen.setdefault(key_of(mended, format), row.place)
            if first != row.place:
                return Change(row.number, row.name, "duplicates", mended, None, same_as=first)
        return None

    def _is_empty(self, mended: Mapping[str, Any], row: SourceRow, format: Format[Any] | None) -> bool:
        try:
            return is_empty(mended, format)
        except FormatError:
            self.unread.append(row.place)
            return False


def later_of_groups(groups: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Of rows by the number of their group, each that is not its group's first, and that first one; from 0."""
    first: dict[int, int] = {}
    for place, group in enumerate(groups):
        if first.setdefault(group, place) != place:
            yield place, first[group]
