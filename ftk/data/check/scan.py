"""One pass over the rows of a part, in several processes where there are many: what checks say of each is kept, and the
few bytes of each row by which it is compared with the others. The texts are not kept.

Shapes: N rows.
"""

import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ftk.core.errors import RunError
from ftk.data.check.benchmark import Benchmark
from ftk.data.check.finding import Places, Remark, Remarked, Tally
from ftk.data.check.row import UNREADABLE, CheckedRow, Family, RowReader
from ftk.data.settings import Source
from ftk.data.source import SourceRow
from ftk.data.system_message import SystemMessage

if TYPE_CHECKING:
    from concurrent.futures import Future

    from ftk.data.check.rendered import RowRenderer

ROWS_AT_ONCE = 2000
"""Rows of a chunk: enough that sending it to a process costs little, few enough that several fit in memory."""
_CHUNKS_ALONE = 10
"""Chunks that this process looks at by itself: to start others takes seconds."""


class RowCheck(Protocol):
    """Judges a row by itself."""

    def remarks(self, row: CheckedRow) -> Iterator[tuple[Remark, str]]:
        """What is to be said of the row, each with what is particular to it."""


class SetCheck(Protocol):
    """Judges a row by the others of its set."""

    @property
    def name(self) -> str:
        """Of what it measures."""

    def measure(self, rows: Sequence[CheckedRow]) -> NDArray[Any]:
        """What the rows are compared by, a few bytes each, [N]."""

    def judge(self, measured_N: NDArray[Any], places: Places) -> Iterator[Remarked]:
        """What is to be said of rows of the set, given what was measured of all of them."""


class Chunk(NamedTuple):
    """Rows of one source that follow each other."""

    family: Family
    format: str
    system: SystemMessage | None
    rows: list[SourceRow]


@dataclass(frozen=True)
class Plan:
    """What is looked for; the same in every process."""

    row_checks: tuple[RowCheck, ...]
    set_checks: tuple[SetCheck, ...]
    benchmarks: tuple[Benchmark, ...] = ()
    renderer: "Callable[[], RowRenderer] | None" = None
    """Gives what renders rows by the model's template and tokenizer; None without a model."""


class Look(NamedTuple):
    """What was seen in a chunk."""

    tally: Tally
    measured: dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Scan:
    """What was seen in all rows of a part."""

    places: Places
    tally: Tally
    measured: dict[str, NDArray[Any]]
    """By the name of the check, [N, ...]."""


class Scanner:
    """Looks at chunks."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._renderer = plan.renderer() if plan.renderer is not None else None

    def look(self, chunk: Chunk) -> Look:
        rows = read_chunk(chunk)
        if self._renderer is not None:
            rows = self._renderer.render(rows)
        tally = Tally()
        for row in rows:
            if row.fault:
                tally.add(UNREADABLE, source=row.source, number=row.number, detail=row.fault)
                continue
            for check in self._plan.row_checks:
                for remark, detail in check.remarks(row):
                    tally.add(remark, source=row.source, number=row.number, detail=detail)
        for benchmark in self._plan.benchmarks:
            for place, item in benchmark.shared(rows):
                row = rows[place]
                tally.add(benchmark.remark, source=row.source, number=row.number, detail=f"as in {item}")
        return Look(tally, {check.name: check.measure(rows) for check in self._plan.set_checks})


def read_chunk(chunk: Chunk) -> list[CheckedRow]:
    """The rows of a chunk."""
    reader = RowReader(chunk.family, chunk.format, system=chunk.system)
    return [reader.read(row) for row in chunk.rows]


def chunks_of(rows: Iterable[SourceRow], source: Source, family: Family, format: str) -> Iterator[Chunk]:
    """The rows of one source, some at a time."""
    rows = iter(rows)
    while some := list(islice(rows, ROWS_AT_ONCE)):
        yield Chunk(family, format, source.system, some)


def scan(chunks: Iterable[Chunk], plan: Plan, *, num_processes: int | None = None) -> Scan:
    """Look at all rows; `num_processes` is by default the number of cores, of which few rows use one.

    Raises:
        DataError: a file cannot be read to its end.
        RunError: a process was ended from outside.
    """
    tally = Tally()
    seen = _Seen()
    measured: dict[str, list[NDArray[Any]]] = {check.name: [] for check in plan.set_checks}
    for look in _looks(seen.watched(chunks), plan, num_processes or _num_cores()):
        tally.merge(look.tally)
        for name, some in look.measured.items():
            measured[name].append(some)
    # One column after the other, whose parts are let go as soon as they are joined.
    joined = {name: np.concatenate(measured.pop(name)) for name in list(measured) if measured[name]}
    return Scan(seen.places(), tally, joined)


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


class _Seen:
    """Where the rows that went by came from."""

    def __init__(self) -> None:
        self._numbers: list[NDArray[np.int64]] = []
        self._sources: list[NDArray[np.int32]] = []
        self._names: dict[str, int] = {}

    def watched(self, chunks: Iterable[Chunk]) -> Iterator[Chunk]:
        for chunk in chunks:
            self._numbers.append(np.array([row.number for row in chunk.rows], np.int64))
            sources = [self._names.setdefault(row.name, len(self._names)) for row in chunk.rows]
            self._sources.append(np.array(sources, np.int32))
            yield chunk

    def places(self) -> Places:
        numbers_N = np.concatenate([np.empty(0, np.int64), *self._numbers])
        return Places(numbers_N, np.concatenate([np.empty(0, np.int32), *self._sources]), tuple(self._names))


def _looks(chunks: Iterator[Chunk], plan: Plan, num_processes: int) -> Iterator[Look]:
    """In the order of the chunks."""
    scanner = Scanner(plan)
    for chunk in islice(chunks, _CHUNKS_ALONE):
        yield scanner.look(chunk)
    following = next(chunks, None)
    if following is None:
        return
    rest = chain([following], chunks)
    if num_processes < 2:
        yield from map(scanner.look, rest)
    else:
        yield from _by_processes(rest, plan, num_processes)


def _by_processes(chunks: Iterator[Chunk], plan: Plan, num_processes: int) -> Iterator[Look]:
    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool
    from multiprocessing import get_context

    # Not by fork: this process has threads of torch and of tokenizers.
    context = get_context("spawn")
    with ProcessPoolExecutor(num_processes, mp_context=context, initializer=_start, initargs=(plan,)) as pool:
        waiting: deque[Future[Look]] = deque()
        try:
            for chunk in chunks:
                waiting.append(pool.submit(_look, chunk))
                if len(waiting) > 2 * num_processes:  # what is read ahead stays small
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            raise RunError(
                "a process that looks at rows was ended, perhaps for lack of memory. --processes 1 does without others"
            ) from error


_scanner: Scanner | None = None
"""Of a process that was started to look at chunks."""


def _start(plan: Plan) -> None:
    global _scanner
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that started this one ends it
    os.environ |= {"TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1"}  # there is a process for each core
    _scanner = Scanner(plan)


def _look(chunk: Chunk) -> Look:
    assert _scanner is not None
    return _scanner.look(chunk)
