"""Sums of tensors with weights: what linear merges, and all that mix models by a few numbers, come down to.

Shapes: M tensors, R rows, N columns.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ftk.merging.chunks import computed, each_chunk, promoted


def weighted_sum(tensors_M: Sequence[Tensor], weights_M: Sequence[float]) -> Tensor:
    """The sum over tensors of weight times tensor, summed in float32 (float64 stays), in the widest of their dtypes."""
    dtype = promoted(tensors_M)
    flat_M = [tensor.reshape(-1) for tensor in tensors_M]
    out = torch.empty(tensors_M[0].shape, dtype=dtype)
    flat_out = out.view(-1)

    def add_up(piece: slice) -> None:
        total = flat_M[0][piece].to(computed(dtype)) * weights_M[0]
        for flat, weight in zip(flat_M[1:], weights_M[1:], strict=True):
            total.add_(flat[piece].to(total.dtype), alpha=weight)
        flat_out[piece] = total

    each_chunk(add_up, out.numel())
    return out


def weighted_sum_by_row(tensors_M: Sequence[Tensor], weights_MRN: Tensor) -> Tensor:
    """The same with a weight for each row or each column.

    Args:
        tensors_M: each taken as a matrix [R, N].
        weights_MRN: [M, R, 1] for a weight a row of that matrix, [M, 1, N] for one a column.
    """
    dtype = promoted(tensors_M)
    out = torch.empty(tensors_M[0].shape, dtype=dtype)
    if out.numel() == 0:
        return out
    weights_MRN = weights_MRN.to(computed(dtype))
    by_row = weights_MRN.shape[2] == 1
    num_rows = weights_MRN.shape[1] if by_row else out.numel() // weights_MRN.shape[2]
    matrices_M = [tensor.reshape(num_rows, -1) for tensor in tensors_M]
    out_RN = out.view(num_rows, -1)
    num_columns = out_RN.shape[1]

    def add_up(piece: slice) -> None:
        rows = slice(piece.start // num_columns, piece.stop // num_columns)
        weights_M = weights_MRN[:, rows] if by_row else weights_MRN
        total = matrices_M[0][rows].to(weights_MRN.dtype) * weights_M[0]
        for matrix, weight in zip(matrices_M[1:], weights_M[1:], strict=True):
            total.addcmul_(matrix[rows].to(total.dtype), weight)
        out_RN[rows] = total

    each_chunk(add_up, out.numel(), row_length=num_columns)
    return out
