"""`ftk data fix`: rows mended into a new file, with a log of every change."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from ftk.core.errors import DataError, RecipeError
from ftk.data.check.near_duplicates import groups_of
from ftk.data.fix import MECHANICAL, TEXT_FIXES
from ftk.data.fix.duplicates import near_text_of
from ftk.data.fix.encoding import Decoder
from ftk.data.fix.mend import Change, Mender, later_of_groups
from ftk.data.fix.texts import any_format_of
from ftk.data.formats import TEXT_OR_LIST
from ftk.data.settings import Source
from ftk.data.source import SourceReader, SourceRow, reader_of
from ftk.data.write_rows import as_json, writing_lines, writing_rows
from ftk.runs.data_output import check_not_in_the_way, check_output_file

NEAR = "near_duplicates"
WHEN_ASKED = (*(name for name, one in TEXT_FIXES.items() if one.when_asked), NEAR)
"""What may change meaning."""
LOG_SUFFIX = ".log"
"""After the name of the output: not `.jsonl`, by which a folder of data would take the log for rows."""


@dataclass(frozen=True)
class Fixed:
    """What was mended."""

    output: str
    log: str
    num_rows: int
    """Rows read."""
    num_rows_written: int
    changes: dict[str, int]
    """Lines of the log by kind; each fix that was applied has its number."""
    encodings: dict[str, str]
    """Encoding by file, of the files that were not plain UTF-8."""
    unread: tuple[str, ...]
    """Places of rows that do not read as their format, and were kept."""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def fix_data(
    input: str,
    out: str,
    *,
    asked: Collection[str] = (),
    skipped: Collection[str] = (),
    encoding: str | None = None,
    threshold: float = 0.8,
    log: str | None = None,
    force: bool = False,
) -> Fixed:
    """Apply the mechanical fixes but those `skipped`, and those `asked` for by name.

    Near-duplicates are rows whose texts share at least `threshold` of what they have together.

    Raises:
        FtkError: the input does not read, the output cannot be written, a fix is not known, or no row is left.
    """
    kinds = [*(one for one in MECHANICAL if one not in _known(skipped, MECHANICAL)), *_known(asked, WHEN_ASKED)]
    reader, decoder = reader_of(Source(source=input)), Decoder(encoding)
    path, log_path = Path(out), Path(log or f"{out}{LOG_SUFFIX}")
    check_output_file(path, reader.files, force=force)
    check_not_in_the_way(log_path, reader.files, force=force)
    if log_path.resolve() == path.resolve():
        raise DataError("the log and the rows cannot be one file", place=str(log_path))
    mender, counts = Mender(kinds), Counter({kind: 0 for kind in kinds})
    with ExitStack() as stack:
        # Entered last, the log appears first: there are no mended rows without it.
        write = stack.enter_context(writing_rows(path, text_or_list=TEXT_OR_LIST))
        note = stack.enter_context(writing_lines(log_path))
        job = _Job(reader, decoder, mender, note)
        rows = job.without_near(threshold) if NEAR in kinds else job.mended()
        for row in rows:
            write(row.columns, row.place)
            job.num_rows_written += 1
        job.note_encodings()
        if not job.num_rows_written:
            raise DataError(f"none of {job.num_rows:,} rows is left: all are empty. Nothing was written", place=input)
    counts.update(mender.counts)
    return Fixed(
        output=out,
        log=str(log_path),
        num_rows=job.num_rows,
        num_rows_written=job.num_rows_written,
        changes=dict(counts),
        encodings=decoder.found,
        unread=tuple(mender.unread),
    )


class _Job:
    """Mends, logs and counts."""

    def __init__(self, reader: SourceReader, decoder: Decoder, mender: Mender, note: Callable[[str], None]) -> None:
        self._reader, self._decoder, self._mender, self._note = reader, decoder, mender, note
        self.num_rows = self.num_rows_written = 0

    def mended(self) -> Iterator[SourceRow]:
        """The rows that stay."""
        for row in self._reader.rows(decode=self._decoder):
            self.num_rows += 1
            mended, changes = self._mender.mend(row)
            self._log(changes)
            if mended is not None:
                yield row._replace(columns=mended)

    def without_near(self, threshold: float) -> Iterator[SourceRow]:
        """The rows that stay, of each group of nearly equal ones the first. All are in memory for that."""
        rows = list(self.mended())
        groups = groups_of([near_text_of(row.columns, any_format_of(row.columns)) for row in rows], threshold=threshold)
        first_of = dict(later_of_groups(groups.tolist()))
        for place, row in enumerate(rows):
            if place not in first_of:
                yield row
                continue
            same_as = rows[first_of[place]].place
            self._log([Change(row.number, row.name, NEAR, row.columns, None, same_as=same_as)])
            self._mender.counts[NEAR] += 1

    def note_encodings(self) -> None:
        """One line for each file that was in another encoding."""
        found = [Change(None, name, "encoding", encoding, "utf-8") for name, encoding in self._decoder.found.items()]
        self._log(found)
        self._mender.counts.update(one.kind for one in found)

    def _log(self, changes: Iterable[Change]) -> None:
        for change in changes:
            self._note(as_json(change.as_json(), escaped=True))


def _known(names: Collection[str], known: Collection[str]) -> Collection[str]:
    for name in names:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise RecipeError(f"there is no fix {name} here, expected {', '.join(known)}.{hint}", place="--skip")
    return names
