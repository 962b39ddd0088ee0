"""Sums over the completions of a batch, which preference losses compare.

Shapes: B rows, L positions, N examples in the order of the batch, D documents of the fullest row, K completions of an
example.
"""

import torch
from torch import Tensor

from ftk.core.types import Batch


def completion_sums(values_BL: Tensor, batch: Batch, *, num_branches: int) -> Tensor:
    """The values of each completion's tokens added up, [N, K]: row by row, and k - 1 is the place of branch k.

    Where every document is one text, its completion is what is learned of it. A row that only keeps processes in step
    counts as one example, whose sums are 0.
    """
    cells_BDKL = _cells(batch, num_branches=num_branches)
    # Added up in float64: sums of hundreds of nats would differ in the digits that a difference of two is made of.
    # One sum a cell and no scattering, which an accelerator would add up in another order each time.
    sums_BDK = (values_BL[:, None, None] * cells_BDKL).sum(dim=-1, dtype=torch.float64).to(values_BL.dtype)
    return sums_BDK[_documents(batch)]


def completion_lengths(batch: Batch, *, num_branches: int) -> Tensor:
    """Learned tokens of each completion, float32 [N, K]; at least 1, so that means over no tokens are 0."""
    learned_BL = (batch.weights_BL > 0).to(torch.float32)
    return completion_sums(learned_BL, batch, num_branches=num_branches).clamp_min(1.0)


def _cells(batch: Batch, *, num_branches: int) -> Tensor:
    """bool [B, D, K, L]: which tokens are of which completion."""
    branches_BL = batch.answers_BL.long() if batch.branches_BL is None else batch.branches_BL
    documents_D = 1 + torch.arange(_most_documents(batch), device=branches_BL.device)
    branches_K = 1 + torch.arange(num_branches, device=branches_BL.device)
    is_document_BDL = batch.document_ids_BL[:, None] == documents_D[:, None]
    is_branch_BKL = branches_BL[:, None] == branches_K[:, None]
    return is_document_BDL[:, :, None] & is_branch_BKL[:, None]


def _documents(batch: Batch) -> Tensor:
    """bool [B, D]: which documents a row has, in whose order examples are counted."""
    documents_D = 1 + torch.arange(_most_documents(batch), device=batch.document_ids_BL.device)
    return documents_D <= batch.document_ids_BL.amax(dim=1, keepdim=True)


def _most_documents(batch: Batch) -> int:
    return int(batch.document_ids_BL.max()) if batch.packed else 1
