"""Rows to be checked, and the findings of a report."""

from collections.abc import Callable
from typing import Any

from ftk.data.check.finding import Finding
from ftk.runs.check_data import DataReport

Row = dict[str, Any]
Check = Callable[..., DataReport]
ANSWERS = ("The town lies at the river.", "A week has seven days.", "Iron is a metal.", "Snow falls in winter.")


def qa(question: str, answer: str | None) -> Row:
    return {"question": question, "answer": answer}


def plain(number: int) -> Row:
    """Rows of which nothing is to be said: they share neither prompts nor runs of words."""
    return qa(
        f"Tell me about thing number {number}, {'abcdefgh'[number % 8] * 3} {number * 7}!",
        f"It is {number * 13}, of kind {number % 7}.",
    )


def found(report: DataReport, kind: str) -> list[tuple[str, int, tuple[int, ...]]]:
    return [(one.severity, one.count, one.rows) for one in report.findings if one.kind == kind]


def only(report: DataReport, kind: str) -> Finding:
    (finding,) = [one for one in report.findings if one.kind == kind]
    return finding
