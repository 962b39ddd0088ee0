"""From examples to the tensors of one forward pass.

Shapes: B rows, L positions.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from ftk.core.types import Batch, Example

_FEW_TOKENS = 8


def collate(rows: Sequence[Sequence[Example]], *, pad_token_id: int) -> Batch:
    """One forward pass; each row holds one or more documents, padded at the right to the longest row.

    Padding is told by document id 0 alone, never by the token: where the padding token is also the end of turn, the
    end of turn is learned all the same. Where no row is packed, positions run on through the padding.
    """
    width = max(sum(len(example.token_ids_L) for example in row) for row in rows)
    packed = any(len(row) > 1 for row in rows)
    input_ids_BL = np.full((len(rows), width), pad_token_id, np.int64)
    position_ids_BL = np.tile(np.arange(width, dtype=np.int64), (len(rows), 1))
    document_ids_BL = np.zeros((len(rows), width), np.int64)
    weights_BL = np.zeros((len(rows), width), np.float32)
    answers_BL = np.zeros((len(rows), width), np.bool_)
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
        if packed:
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
    )


def idle_batch(example: Example) -> Batch:
    """One short row of weight 0: a process without rows of its own still touches every parameter with it."""
    short = replace(
        example,
        token_ids_L=example.token_ids_L[:_FEW_TOKENS],
        weights_L=np.zeros_like(example.weights_L[:_FEW_TOKENS]),
        answers_L=np.zeros_like(example.answers_L[:_FEW_TOKENS]),
    )
    return replace(collate([[short]], pad_token_id=0), num_tokens=0, num_examples=0, indices=())
