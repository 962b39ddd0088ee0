"""Rows, pieces and comparisons for the tests of the loop, and the objectives that learn them.

Shapes: B rows, L positions.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from preference_objectives import LOSSES, VOCABULARY, batch_of, examples, objective_of

from ftk.core.types import NUM_BYTES, Batch, Example
from ftk.data.pieces import Cutter, Stretch
from ftk.objectives.cpt import CptObjective
from ftk.objectives.sft import SftObjective

OBJECTIVES = ("sft", "cpt", *LOSSES)


def rows(count: int, *, seed: int = 0, low: int = 3, high: int = 14) -> list[tuple[list[int], list[float]]]:
    """Rows of unequal lengths with ragged masks."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        length = int(rng.integers(low, high))
        ids = [int(one) for one in rng.integers(1, VOCABULARY, length)]
        start = int(rng.integers(1, length))
        made.append((ids, [0.0] + [0.1] * (start - 1) + [1.0] * (length - start)))
    return made


def collate(chosen: Sequence[tuple[list[int], list[float]]], indices: Sequence[int]) -> Batch:
    length = max((len(ids) for ids, _ in chosen), default=2)
    size = max(1, len(chosen))
    ids_BL, documents_BL = torch.zeros(size, length, dtype=torch.long), torch.zeros(size, length, dtype=torch.long)
    weights_BL = torch.zeros(size, length)
    for row, (ids, weights) in enumerate(chosen):
        ids_BL[row, : len(ids)] = torch.tensor(ids)
        documents_BL[row, : len(ids)] = 1
        weights_BL[row, : len(ids)] = torch.tensor(weights)
    return Batch(
        input_ids_BL=ids_BL,
        position_ids_BL=torch.arange(length).expand(size, -1),
        document_ids_BL=documents_BL,
        weights_BL=weights_BL,
        answers_BL=weights_BL == 1,
        packed=False,
        num_tokens=sum(len(ids) for ids, _ in chosen),
        num_examples=len(chosen),
        indices=tuple(indices),
    )


def split(chosen: Sequence[Any], micro_batch_size: int, collated: Callable[..., Batch] = collate) -> list[Batch]:
    starts = range(0, len(chosen), micro_batch_size)
    return [
        collated(chosen[start : start + micro_batch_size], range(start, min(len(chosen), start + micro_batch_size)))
        for start in starts
    ]


def pieces(count: int, *, seed: int = 0) -> list[Example]:
    """Documents of unequal length, cut into pieces that overlap by two tokens."""
    rng = np.random.default_rng(seed)
    cutter = Cutter(bos=1, eos=2, max_length=9, overlap=2)
    made: list[Example] = []
    while len(made) < count:
        length = int(rng.integers(1, 20))
        stretch = Stretch(rng.integers(3, VOCABULARY, length).astype(np.int32), rng.integers(1, 5, length))
        for piece in [*cutter.push(stretch), *cutter.end()]:
            learned_L = np.arange(len(piece.token_ids_L)) >= piece.num_context
            columns = {NUM_BYTES: np.asarray(piece.num_bytes, np.float32)}
            made.append(Example(piece.token_ids_L, learned_L.astype(np.float32), learned_L, len(made), columns=columns))
    return made[:count]


def objective_named(name: str) -> Any:
    """The objective of one of `OBJECTIVES`."""
    return {"sft": SftObjective, "cpt": CptObjective}[name]() if name in ("sft", "cpt") else objective_of(name)


def data_of(objective: str, count: int, *, seed: int = 0) -> tuple[Sequence[Any], Callable[..., Batch]]:
    """Rows for an objective, and what makes a batch of some of them and their indices."""
    if objective == "sft":
        return rows(count, seed=seed), collate
    if objective == "cpt":
        made = pieces(count, seed=seed)
    else:
        made = examples(count, unpaired=objective_of(objective).loss.rows == "unpaired", seed=seed)
    return made, lambda chosen, indices: batch_of([[one] for one in chosen], spare=made[0])


def length_of(row: Any) -> int:
    return len(row[0] if isinstance(row, tuple) else row.token_ids_L)
