"""How the documents of a batch lie in the rows that the backbone sees.

Shapes: B rows and L positions of the batch, R rows and M positions that the backbone sees, N = B * L, G documents.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ftk.core.types import Batch


@dataclass(frozen=True)
class Arrangement:
    """Rows for the backbone, and where each token of the batch lies in them."""

    input_ids_RM: Tensor
    position_ids_RM: Tensor | None
    """None where every row counts from 0 and holds one document, which is then padded at the right.

    No real token of a causal model sees padding at its right: no mask is needed, and attention takes its fast path."""
    real_RM: Tensor
    """bool: no padding."""
    places_N: Tensor
    """Index of each token of the batch in the flattened rows; 0 for padding that was left out."""


def as_given(batch: Batch) -> Arrangement:
    """The rows as they are. Several documents of a row are told apart by positions that start anew."""
    real_BL = batch.document_ids_BL > 0
    return Arrangement(
        input_ids_RM=batch.input_ids_BL,
        position_ids_RM=batch.position_ids_BL if batch.packed else None,
        real_RM=real_BL,
        places_N=torch.arange(real_BL.numel(), device=real_BL.device),
    )


def end_to_end(batch: Batch) -> Arrangement:
    """All documents in one row without padding, as attention kernels for rows of varying length want them."""
    real_N = batch.document_ids_BL.flatten() > 0
    if not real_N.any():
        return as_given(batch)
    return Arrangement(
        input_ids_RM=batch.input_ids_BL.flatten()[real_N][None],
        position_ids_RM=batch.position_ids_BL.flatten()[real_N][None],
        real_RM=torch.ones((1, int(real_N.sum())), dtype=torch.bool, device=real_N.device),
        places_N=(real_N.cumsum(0) - 1).clamp_min(0),
    )


def one_document_a_row(batch: Batch) -> Arrangement:
    """Each document in a row of its own: right for any architecture, also one that cannot keep documents apart."""
    real_BL = batch.document_ids_BL > 0
    if not batch.packed or not real_BL.any():
        return as_given(batch)
    starts_BL = real_BL & (batch.position_ids_BL == 0)
    rows_N = (starts_BL.flatten().cumsum(0) - 1).clamp_min(0)
    columns_N = batch.position_ids_BL.flatten()
    real_N = real_BL.flatten()
    num_rows, num_columns = int(starts_BL.sum()), int(columns_N[real_N].max()) + 1
    places_N = torch.where(real_N, rows_N * num_columns + columns_N, 0)
    shape = (num_rows, num_columns)
    input_ids = batch.input_ids_BL.new_zeros(num_rows * num_columns)
    input_ids[places_N[real_N]] = batch.input_ids_BL.flatten()[real_N]
    real = torch.zeros_like(input_ids, dtype=torch.bool)
    real[places_N[real_N]] = True
    return Arrangement(input_ids.view(shape), None, real.view(shape), places_N)
