"""What checks say: remarks on single rows, gathered to findings.

Shapes: N rows.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Severity = Literal["info", "warning", "error"]
SEVERITIES: tuple[Severity, ...] = ("info", "warning", "error")
"""From what is worth knowing to what training refuses or what makes its result wrong."""
ROWS_LISTED = 100
"""Rows of a finding that are named; all of them are counted."""


class Remark(NamedTuple):
    """What is to be said of a row, in the same words for every row of which it is true."""

    kind: str
    severity: Severity
    message: str


class Remarked(NamedTuple):
    """A remark on one row of a set."""

    place: int
    """Of the row in its set, from 0."""
    remark: Remark
    detail: str = ""
    """What is particular to this row, such as the row that it repeats."""


@dataclass(frozen=True)
class Finding:
    """One remark with all rows of one file of which it is true."""

    kind: str
    severity: Severity
    message: str
    part: str
    """`train`, `eval` or `against`."""
    source: str
    """The file or data set, as errors name it."""
    count: int
    rows: tuple[int, ...]
    """Numbers of the first `ROWS_LISTED` rows in their file, from 1."""
    details: tuple[str, ...]
    """What is particular to each of `rows`; empty where there is nothing."""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Places:
    """Where the rows of a set came from."""

    numbers_N: NDArray[np.int64]
    sources_N: NDArray[np.int32]
    """Index into `names`."""
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.numbers_N)

    def source(self, index: int) -> str:
        return self.names[int(self.sources_N[index])]

    def place(self, index: int) -> str:
        """As errors name the row, `file:row`."""
        return f"{self.source(index)}:{int(self.numbers_N[index])}"


@dataclass
class _Rows:
    count: int = 0
    rows: list[int] = field(default_factory=list)
    details: list[str] = field(default_factory=list)


class Tally:
    """Rows by remark and file, of which only the first are kept by number."""

    def __init__(self) -> None:
        self._rows: dict[tuple[Remark, str], _Rows] = {}

    def add(self, remark: Remark, *, source: str, number: int, detail: str = "") -> None:
        found = self._rows.setdefault((remark, source), _Rows())
        found.count += 1
        if len(found.rows) < ROWS_LISTED:
            found.rows.append(number)
            found.details.append(detail)

    def add_all(self, remarked: Iterable[Remarked], places: Places) -> None:
        """Add remarks on rows of a set."""
        for place, remark, detail in remarked:
            self.add(remark, source=places.source(place), number=int(places.numbers_N[place]), detail=detail)

    def merge(self, later: "Tally") -> None:
        """Add what was found in rows that come after those seen so far."""
        for key, more in later._rows.items():
            found = self._rows.setdefault(key, _Rows())
            left = ROWS_LISTED - len(found.rows)
            found.count += more.count
            found.rows += more.rows[:left]
            found.details += more.details[:left]

    def findings(self, part: str) -> list[Finding]:
        """One for each remark and file."""
        return [
            Finding(
                kind=remark.kind,
                severity=remark.severity,
                message=remark.message,
                part=part,
                source=source,
                count=found.count,
                rows=tuple(found.rows),
                details=tuple(found.details) if any(found.details) else (),
            )
            for (remark, source), found in self._rows.items()
        ]


def by_severity(findings: Iterable[Finding]) -> list[Finding]:
    """The worst first; of equal ones, the one with the most rows."""
    return sorted(findings, key=lambda one: (-SEVERITIES.index(one.severity), -one.count, one.kind, one.source))


def worst_of(findings: Sequence[Finding]) -> Severity | None:
    """The highest severity there is; None without findings."""
    return max((one.severity for one in findings), key=SEVERITIES.index, default=None)
