"""From examples to the tensors of one forward pass.

Shapes: B rows, L positions.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ftk.core.types import Batch, Example

ASIDE = -1
"""Branch of a completion that statistics alone look at."""
_FEW_TOKENS = 8

Rows = Sequence[Sequence[Example]]


def collate(rows: Rows, *, pad_token_id: int) -> Batch:
    """One forward pass; each row holds one or more documents, padded at the right to the longest row.

    Padding is told by document id 0 alone, never by the token: where the padding token is also the end of turn, the
    end of turn is learned all the same. Where no row is packed, positions run on through the padding.

    Raises:
        ValueError: a completion has no prompt before it, or some examples have one aside and others none.
    """
    first = rows[0][0]
    columns = {name: _column(rows, name) for name in first.columns}
    if first.branches_L is None:
        return _collate(rows, columns, pad_token_id=pad_token_id)
    batch = _collate(_only(rows, aside=False), columns, pad_token_id=pad_token_id)
    has_aside = {bool((_branches(example) == ASIDE).any()) for row in rows for example in row}
    if len(has_aside) > 1:
        raise ValueError("some examples have a completion aside and others none")
    if not has_aside.pop():
        return batch
    return replace(batch, aside=_collate(_only(rows, aside=True), columns, pad_token_id=pad_token_id))


def _collate(rows: Rows, columns: dict[str, Tensor], *, pad_token_id: int) -> Batch:
    width = max(sum(len(example.token_ids_L) for example in row) for row in rows)
    packed = any(len(row) > 1 for row in rows)
    input_ids_BL = np.full((len(rows), width), pad_token_id, np.int64)
    position_ids_BL = np.tile(np.arange(width, dtype=np.int64), (len(rows), 1))
    document_ids_BL = np.zeros((len(rows), width), np.int64)
    weights_BL = np.zeros((len(rows), width), np.float32)
    answers_BL = np.zeros((len(rows), width), np.bool_)
    branches_BL = np.zeros((len(rows), width), np.int64) if _are_trees(rows) else None
    for number, row in enumerate(rows):
        end = 0
        for document, example in enumerate(row, start=1):
            start, end = end, end + len(example.token_ids_L)
            input_ids_BL[number, start:end] = example.token_ids_L
            position_ids_BL[number, start:end] = np.arange(end - start)
            document_ids_BL[number, start:end] = document
            weights_BL[number, start:end] = example.weights_L
            weights_BL[number, start] = 0.0  # what stands before it is another document, or nothing
            answers_BL[number, start:end] = example.answers_L
            if branches_BL is not None:
                branches_BL[number, start:end] = _branches(example)
                position_ids_BL[number, start:end] = _positions(_branches(example))
        if packed or branches_BL is not None:
            position_ids_BL[number, end:] = np.arange(width - end)
    indices = tuple(example.index for row in rows for example in row)
    return Batch(
        input_ids_BL=torch.from_numpy(input_ids_BL),
        position_ids_BL=torch.from_numpy(position_ids_BL),
        document_ids_BL=torch.from_numpy(document_ids_BL),
        weights_BL=torch.from_numpy(weights_BL),
        answers_BL=torch.from_numpy(answers_BL),
        packed=packed,
        num_tokens=int((document_ids_BL > 0).sum()),
        num_examples=len(indices),
        indices=indices,
        branches_BL=torch.from_numpy(branches_BL) if branches_BL is not None else None,
        columns=columns,
    )


def idle_batch(example: Example) -> Batch:
    """One short row of weight 0: a process without rows of its own still touches every parameter with it.

    Where the example has a completion aside, so has the row: every process runs as many forward passes.
    """
    short = replace(
        example,
        token_ids_L=example.token_ids_L[:_FEW_TOKENS],
        weights_L=np.zeros_like(example.weights_L[:_FEW_TOKENS]),
        answers_L=np.zeros_like(example.answers_L[:_FEW_TOKENS]),
        branches_L=None,
        columns={name: np.zeros_like(value) for name, value in example.columns.items()},
    )
    idle = replace(collate([[short]], pad_token_id=0), num_tokens=0, num_examples=0, indices=())
    has_aside = example.branches_L is not None and bool((example.branches_L == ASIDE).any())
    return replace(idle, aside=idle) if has_aside else idle


def _only(rows: Rows, *, aside: bool) -> list[list[Example]]:
    """The examples with the completion that lies aside as their only one, or without it."""
    return [[_part(example, aside=aside) for example in row] for row in rows]


def _part(example: Example, *, aside: bool) -> Example:
    branches_L = _branches(example)
    if branches_L[0] != 0:
        raise ValueError("a completion has no prompt before it, and so nothing that its first token is predicted from")
    here_L = (branches_L <= 0) if aside else (branches_L >= 0)
    if here_L.all() and not aside:
        return example
    return replace(
        example,
        token_ids_L=example.token_ids_L[here_L],
        weights_L=example.weights_L[here_L],
        answers_L=example.answers_L[here_L],
        branches_L=np.abs(branches_L[here_L]),
    )


def _branches(example: Example) -> NDArray[np.int8]:
    if example.branches_L is None:
        raise ValueError("some examples have completions and others are one text")
    return example.branches_L


def _are_trees(rows: Rows) -> bool:
    """Whether some prompt has more than one completion; with one, an example is a text like any other."""
    return any(example.branches_L is not None and int(example.branches_L.max()) > 1 for row in rows for example in row)


def _positions(branches_L: NDArray[np.int8]) -> NDArray[np.int64]:
    """Positions of a tree's tokens: every completion goes on from the end of the trunk."""
    places_L = np.arange(len(branches_L))
    starts_L = np.maximum.accumulate(np.where(np.diff(branches_L, prepend=branches_L[:1]) != 0, places_L, 0))
    trunk_length = int((branches_L == 0).sum())
    return np.where(branches_L == 0, places_L, trunk_length + places_L - starts_L)


def _column(rows: Rows, name: str) -> Tensor:
    values_N = [example.columns[name] for row in rows for example in row]
    return torch.from_numpy(np.asarray(values_N, np.float32))
