"""Generated answers, judged row by row and averaged over rows and groups of rows."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ftk.core.errors import DataError
from ftk.core.json_values import finite
from ftk.evaluation.metrics import Metric
from ftk.evaluation.metrics.custom import CustomMetric
from ftk.evaluation.metrics.infilling_pass_at_1 import InfillingPassAt1

MAX_GROUPS = 50
"""Values of a column past which it is no grouping, but a free text or a number of the row."""


@dataclass(frozen=True, slots=True)
class JudgedRow:
    """One row: what was asked, what came, and what it is worth."""

    source: str
    row: int
    """Number of the row in its source, from 1."""
    prompt: str
    answer: str
    reference: str
    is_cut: bool
    """The answer did not end by itself."""
    metrics: Mapping[str, float]

    def as_json(self, shots: int) -> str:
        """One line of an answers file."""
        record = {
            "source": self.source,
            "row": self.row,
            "shots": shots,
            "prompt": self.prompt,
            "answer": self.answer,
            "reference": self.reference,
            "is_cut": self.is_cut,
            "metrics": self.metrics,
        }
        return json.dumps(finite(record), ensure_ascii=False, allow_nan=False)


def check_metrics(metrics: Sequence[Metric], references: Sequence[str], columns: Sequence[Mapping[str, Any]]) -> None:
    """Find out before the long work of generating that a metric cannot judge these rows.

    Raises:
        RecipeError: there is no such function.
        DataError: a reference is not what a metric compares with, or a row lacks what it needs.
        SetupError: this machine lacks what a metric needs.
    """
    judged = [metric for metric in metrics if not isinstance(metric, CustomMetric | InfillingPassAt1)]
    for metric in metrics:
        if isinstance(metric, InfillingPassAt1):
            # Programs are run once, when they are written.
            metric.check_rows(columns)
        if isinstance(metric, CustomMetric):
            # Not called on anything: it may be slow, or cost money.
            metric.load()
    judge(judged, references, references, columns)


def judge(
    metrics: Sequence[Metric],
    answers: Sequence[str],
    references: Sequence[str],
    columns: Sequence[Mapping[str, Any]],
) -> dict[str, list[float]]:
    """Every metric's values, one for each row; NaN where a metric has nothing to say of a row."""
    values: dict[str, list[float]] = {}
    for metric in metrics:
        values |= metric.score(answers, references, columns)
    return values


def averages(values: Mapping[str, Sequence[float]], groups: Sequence[str] | None = None) -> dict[str, float]:
    """Mean of each metric over the rows that it applies to, then `metric[group]` over the rows of each group."""
    means = {name: _mean(column) for name, column in values.items()}
    for group in sorted(set(groups or ())):
        for name, column in values.items():
            members = [value for value, own in zip(column, groups or (), strict=True) if own == group]
            means[f"{name}[{group}]"] = _mean(members)
    return means


def groups_by(column: str, columns: Sequence[Mapping[str, Any]]) -> list[str]:
    """For each row the group it belongs to, as `column=value`.

    Raises:
        DataError: a row lacks the column, or it has so many values that they are no groups.
    """
    groups = []
    for number, row in enumerate(columns, start=1):
        if column not in row:
            raise DataError(f"evaluation row {number} has no column {column} to group by; it has {', '.join(row)}")
        value = row[column]
        groups.append(f"{column}={value if isinstance(value, str) else json.dumps(value, default=str)}")
    if len(set(groups)) > MAX_GROUPS:
        raise DataError(
            f"column {column} has {len(set(groups))} different values, and metrics are given for each of at most "
            f"{MAX_GROUPS}. Name a column that sorts rows into few groups"
        )
    return groups


def _mean(values: Sequence[float]) -> float:
    applicable = [value for value in values if not math.isnan(value)]
    return math.fsum(applicable) / len(applicable) if applicable else math.nan
