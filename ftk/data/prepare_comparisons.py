"""From comparisons to the examples that are trained on."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from ftk.core.types import Comparison, Examples
from ftk.data.branches import mismatched, render_branches
from ftk.data.prepare import ROWS_AT_ONCE, PreparationReport, prepare_rows, role_of
from ftk.data.render import Rendered, Renderer
from ftk.data.settings import DataSettings


def prepare_comparisons(
    comparisons: Sequence[Comparison],
    renderer: Renderer,
    *,
    settings: DataSettings,
    max_length: int,
    cache_folder: Path | None,
    asides: bool = True,
) -> tuple[Examples, PreparationReport]:
    """Render, check and cut every pair, or every completion by itself, or find that in the cache.

    Each is one example: the prompt as its trunk, with a branch for each completion; see `render_branches`. A completion
    by itself has its worth in the column `desirable`, 1 or 0, and with `asides` the completion of another prompt
    (see `mismatched`) beside it, cut at the right where it is too long; `asides=False` is for looking at rows.

    Raises:
        DataError: a row does not read, fails a check, or is too long under `truncation: error`; none is left; or all
            completions by themselves have one prompt.
    """
    return prepare_rows(
        comparisons,
        renderer,
        _rendered(comparisons, renderer, asides=asides),
        settings=settings,
        max_length=max_length,
        cache_folder=cache_folder,
        asides=asides,
    )


def _rendered(comparisons: Sequence[Comparison], renderer: Renderer, *, asides: bool) -> Iterator[Rendered]:
    unpaired = any(one.desirable is not None for one in comparisons)
    others = mismatched(comparisons, role=role_of(comparisons)) if asides and unpaired else None
    for start in range(0, len(comparisons), ROWS_AT_ONCE):
        part = slice(start, start + ROWS_AT_ONCE)
        beside = [comparisons[number] for number in others[part]] if others is not None else None
        yield from render_branches(renderer, comparisons[part], beside)
