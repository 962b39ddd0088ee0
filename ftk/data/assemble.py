"""Rendered rows joined to flat arrays."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ftk.core.types import Comparison, Conversation, Examples
from ftk.data.render import Rendered
from ftk.data.rows import Rows


def assemble(
    left: Sequence[Rendered], kept: Sequence[int], rows: Sequence[Conversation] | Sequence[Comparison]
) -> tuple[Examples, list[int]]:
    """The examples, and for each of their `source_names` the source of the recipe it belongs to."""
    numbers = rows.source_numbers if isinstance(rows, Rows) else [0] * len(rows)
    places: dict[tuple[int, str], int] = {}
    sources = [places.setdefault((numbers[n], rows[n].source), len(places)) for n in kept]
    branches = [row.branches_L for row in left if row.branches_L is not None]
    examples = Examples(
        token_ids=np.concatenate([row.token_ids_L for row in left]),
        weights=np.concatenate([row.weights_L for row in left]),
        answers=np.concatenate([row.answers_L for row in left]),
        offsets=np.cumsum([0, *(len(row.token_ids_L) for row in left)], dtype=np.int64),
        rows_N=np.array([rows[n].row for n in kept], np.int64),
        sources_N=np.array(sources, np.int32),
        source_names=tuple(name for _, name in places),
        branches=np.concatenate(branches) if branches else None,
        columns=_columns([rows[n] for n in kept]),
    )
    return examples, [number for number, _ in places]


def _columns(rows: Sequence[Conversation | Comparison]) -> dict[str, NDArray[np.float32]]:
    """What is known of completions by themselves."""
    desirable = [one.desirable for one in rows if isinstance(one, Comparison) and one.desirable is not None]
    return {"desirable": np.array(desirable, np.float32)} if desirable else {}


def prompt_share(examples: Examples) -> float:
    """Share of the loss weight that lies on prompts, 0 to 1."""
    on_answers = float(examples.weights.sum(where=examples.answers, dtype=np.float64))
    return 1 - on_answers / float(examples.weights.sum(dtype=np.float64))


def source_weights(
    rows: Sequence[Conversation] | Sequence[Comparison], origins: Sequence[int], examples: Examples
) -> tuple[float, ...] | None:
    """Weight of each of the examples' `source_names`; a folder's is shared by its files according to their rows."""
    weights = rows.weights if isinstance(rows, Rows) else None
    if weights is None:
        return None
    counts = np.bincount(examples.sources_N, minlength=len(origins))
    totals = np.bincount(origins, weights=counts, minlength=len(weights))
    return tuple(weights[origin] * int(counts[place]) / totals[origin] for place, origin in enumerate(origins))
