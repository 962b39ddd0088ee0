"""Rows with retrieved documents, asked without them: what the weights know, and what the documents tell."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ftk.core.types import Conversation
from ftk.runs.summary import PERCENT, figure

NO_CONTEXT = "@no_context"
"""Behind the name of a figure that is of prompts without their documents."""


def rows_without_context(rows: Sequence[Conversation]) -> list[Conversation]:
    """The rows that have documents, without them."""
    return [
        replace(row, messages=row.without_context, without_context=None)
        for row in rows
        if row.without_context is not None
    ]


def named_without_context(figures: Mapping[str, float]) -> dict[str, float]:
    """Figures of such rows by their names, which say so."""
    return {f"{name}{NO_CONTEXT}": value for name, value in figures.items()}


def context_sentence(after: Mapping[str, float]) -> str | None:
    """What the documents add, in words; None where nothing was asked with and without them."""
    both = [name for name in after if f"{name}{NO_CONTEXT}" in after]
    name = next((name for name in both if PERCENT.match(name) and name != "token_accuracy"), next(iter(both), None))
    if name is None:
        return None
    shown, bare = after[name], after[f"{name}{NO_CONTEXT}"]
    what = f"{name} is {figure(name, shown)} with the retrieved documents and {figure(name, bare)} without"
    if not PERCENT.match(name):
        return f"{what}: the difference is what the documents tell, the rest what the weights know"
    return f"{what}: {100 * (shown - bare):.1f} points come from the documents, the rest from the weights"
