"""`ftk data split`: the rows of one set dealt to training, evaluation and test."""

import json
from collections import Counter
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ftk.core.atomic import atomic_folder
from ftk.core.errors import DataError, RecipeError
from ftk.data.check.near_duplicates import groups_of
from ftk.data.files import SUFFIXES
from ftk.data.fix.duplicates import key_of, near_text_of
from ftk.data.fix.texts import any_format_of
from ftk.data.formats import TEXT_OR_LIST
from ftk.data.grouped_split import draw_parts
from ftk.data.settings import Source
from ftk.data.source import SourceRow, reader_of
from ftk.data.write_rows import writing_rows
from ftk.runs.data_output import check_output_folder

NEAR = "near-duplicates"
PARTS = ("train", "eval", "test")


@dataclass(frozen=True)
class SplitData:
    """What fell where."""

    folder: str
    files: dict[str, str]
    """File by part."""
    num_rows: dict[str, int]
    """Rows by part."""
    asked: dict[str, int]
    """Rows that were asked for, by part; groups may stand in the way."""
    num_groups: int | None
    """None where each row stands by itself."""
    strata: dict[str, dict[str, int]] | None
    """Rows by part, for each value of the column."""
    num_torn: int
    """Rows outside of training that are equal to a training row."""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def split_data(
    input: str,
    out: str,
    *,
    eval: str,
    test: str | None = None,
    seed: int = 0,
    stratify: str | None = None,
    group: str | None = None,
    threshold: float = 0.8,
) -> SplitData:
    """Write `train`, `eval` and perhaps `test` into a new folder; rows keep their order and all their columns.

    `eval` and `test` are shares (0.1) or numbers of rows (200). `group` names a column whose equal values stay
    together, or is `near-duplicates`: rows whose texts share at least `threshold` of what they have together.

    Raises:
        FtkError: the input does not read, a column is missing, or the sizes leave a part empty.
    """
    folder = Path(out)
    check_output_folder(folder)
    reader = reader_of(Source(source=input))
    rows = list(reader.rows())
    sizes = _sizes(len(rows), eval=eval, test=test)
    groups_N = _groups(rows, group, threshold=threshold)
    values = None if stratify is None else [_value(row, stratify, "--stratify") for row in rows]
    part_N = draw_parts(
        list(sizes.values()),
        seed=seed,
        strata_N=None if values is None else _numbers(values),
        groups_N=groups_N,
        num_rows=len(rows),
    )
    parts = [PARTS[number] for number in part_N.tolist()]
    counts = Counter(parts)
    num_groups = None if groups_N is None else len(set(groups_N.tolist()))
    empty = [name for name in ("train", *sizes) if not counts[name]]
    if empty:
        raise DataError(
            f"there would be no rows for {' and '.join(empty)}: there are {num_groups:,} groups, which are never torn. "
            "Group by something finer, or ask for another share",
            place=input,
        )
    suffixes = {one.suffix for one in reader.files}
    suffix = suffixes.pop() if len(suffixes) == 1 else SUFFIXES[0]
    _write(rows, parts, folder, names=("train", *sizes), suffix=suffix)
    return SplitData(
        folder=out,
        files={name: str(folder / f"{name}{suffix}") for name in ("train", *sizes)},
        num_rows={name: counts[name] for name in ("train", *sizes)},
        asked=sizes,
        num_groups=num_groups,
        strata=None if values is None else _table(values, parts),
        num_torn=_num_torn(rows, parts),
    )


def _write(rows: list[SourceRow], parts: list[str], folder: Path, *, names: tuple[str, ...], suffix: str) -> None:
    try:
        with atomic_folder(folder) as temporary, ExitStack() as stack:
            write = {
                name: stack.enter_context(writing_rows(temporary / f"{name}{suffix}", text_or_list=TEXT_OR_LIST))
                for name in names
            }
            for row, part in zip(rows, parts, strict=True):
                write[part](row.columns, row.place)
    except OSError as error:
        raise DataError(f"the folder cannot be written: {error.strerror or error}", place=str(folder)) from error


def _sizes(num_rows: int, *, eval: str, test: str | None) -> dict[str, int]:
    sizes = {"eval": _size(eval, num_rows, flag="--eval")}
    if test is not None:
        sizes["test"] = _size(test, num_rows, flag="--test")
    if sum(sizes.values()) >= num_rows:
        asked = " and ".join(f"{size:,} for {name}" for name, size in sizes.items())
        raise RecipeError(f"of {num_rows:,} rows {asked} leave none to train on. Ask for less", place="--eval")
    return sizes


def _size(text: str, num_rows: int, *, flag: str) -> int:
    """Rows that a share, below 1, or a number of rows means; the nearest whole number, of two the upper one."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not (0 < value < 1 or (value >= 1 and value.is_integer())):
        raise RecipeError(f"{text!r} is neither a share such as 0.1 nor a number of rows such as 200", place=flag)
    size = int(value) if value >= 1 else int(value * num_rows + 0.5)
    if not size:
        raise RecipeError(f"{text} of {num_rows:,} rows is less than one. Ask for more", place=flag)
    return size


def _groups(rows: list[SourceRow], group: str | None, *, threshold: float) -> NDArray[np.int64] | None:
    if group is None:
        return None
    if group == NEAR:
        return groups_of([near_text_of(row.columns, any_format_of(row.columns)) for row in rows], threshold=threshold)
    values = [_value(row, group, "--group") for row in rows]
    # A row without a value belongs to no other.
    return _numbers([f"{value}#{place}" if value == "null" else value for place, value in enumerate(values)])


def _value(row: SourceRow, column: str, flag: str) -> str:
    if column not in row.columns:
        raise DataError(f"{flag}: the row has no column {column}; it has {', '.join(row.columns)}", place=row.place)
    value = row.columns[column]
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)


def _numbers(values: list[str]) -> NDArray[np.int64]:
    number: dict[str, int] = {}
    return np.array([number.setdefault(value, len(number)) for value in values], np.int64)


def _table(values: list[str], parts: list[str]) -> dict[str, dict[str, int]]:
    table: dict[str, dict[str, int]] = {}
    for value, part in zip(values, parts, strict=True):
        table.setdefault(value, {})[part] = table.setdefault(value, {}).get(part, 0) + 1
    return table


def _num_torn(rows: list[SourceRow], parts: list[str]) -> int:
    keys = [key_of(row.columns, any_format_of(row.columns)) for row in rows]
    trained = {key for key, part in zip(keys, parts, strict=True) if part == "train"}
    return sum(part != "train" and key in trained for key, part in zip(keys, parts, strict=True))
