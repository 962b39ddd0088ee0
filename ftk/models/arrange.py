"""How the documents of a batch lie in the rows that the backbone sees.

Shapes: B rows and L positions of the batch, R rows and M positions that the backbone sees, N = B * L, G documents,
T texts: a document, or where it has completions its trunk with one of them.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ftk.core.types import Batch


@dataclass(frozen=True)
class Arrangement:
    """Rows for the backbone, and where each token of the batch is predicted in them."""

    input_ids_RM: Tensor
    position_ids_RM: Tensor | None
    """None where every row counts from 0 and holds one document, which is then padded at the right.

    No real token of a causal model sees padding at its right: no mask is needed, and attention takes its fast path."""
    real_RM: Tensor
    """bool: no padding."""
    predictors_N: Tensor
    """Index in the flattened rows of the place that predicts each token of the batch: the one before it in its text.

    Meaningless for padding, and for the first token of a document."""
    counted_RM: Tensor
    """bool: each token of the batch once; less than `real_RM` where a trunk is repeated."""
    sees_R1MM: Tensor | None = None
    """bool: which place (last but one axis) sees which; None where the model's own mask is right."""


def as_given(batch: Batch) -> Arrangement:
    """The rows as they are. Several documents of a row are told apart by positions that start anew."""
    real_BL = batch.document_ids_BL > 0
    return Arrangement(
        input_ids_RM=batch.input_ids_BL,
        position_ids_RM=batch.position_ids_BL if batch.packed else None,
        real_RM=real_BL,
        predictors_N=torch.arange(-1, real_BL.numel() - 1, device=real_BL.device).clamp_min(0),
        counted_RM=real_BL,
    )


def as_trees(batch: Batch) -> Arrangement:
    """The rows as they are, with a mask: a token sees its document's trunk and its own branch, up to itself."""
    documents_BL, branches_BL = batch.document_ids_BL, _branches(batch)
    given = as_given(batch)
    places_N = torch.arange(documents_BL.numel(), device=documents_BL.device)
    trunk_starts_N = torch.where(_document_starts(batch), places_N, 0).cummax(0).values
    # The position of a completion's first token is the length of its trunk.
    trunk_ends_N = (trunk_starts_N + batch.position_ids_BL.flatten() - 1).clamp_min(0)
    same_BLL = documents_BL[:, :, None] == documents_BL[:, None]
    of_trunk_or_branch_BLL = (branches_BL[:, None] == 0) | (branches_BL[:, :, None] == branches_BL[:, None])
    length = documents_BL.shape[1]
    causal_LL = torch.ones((length, length), dtype=torch.bool, device=documents_BL.device).tril()
    return replace(
        given,
        position_ids_RM=batch.position_ids_BL,
        predictors_N=torch.where(_branch_starts(batch), trunk_ends_N, given.predictors_N),
        # Padding is a document by itself here: a row of attention without anything to see would not be a number.
        sees_R1MM=(same_BLL & of_trunk_or_branch_BLL & causal_LL)[:, None],
    )


def end_to_end(batch: Batch) -> Arrangement:
    """All texts in one row without padding, as attention kernels for rows of varying length want them."""
    if batch.branches_BL is not None:
        return _without_padding(one_text_a_row(batch))
    real_N = batch.document_ids_BL.flatten() > 0
    if not real_N.any():
        return as_given(batch)
    real_RM = torch.ones((1, int(real_N.sum())), dtype=torch.bool, device=real_N.device)
    return Arrangement(
        input_ids_RM=batch.input_ids_BL.flatten()[real_N][None],
        position_ids_RM=batch.position_ids_BL.flatten()[real_N][None],
        real_RM=real_RM,
        predictors_N=(real_N.cumsum(0) - 2).clamp_min(0),
        counted_RM=real_RM,
    )


def one_text_a_row(batch: Batch) -> Arrangement:
    """Each text in a row of its own: right for any architecture, also one that cannot keep documents apart.

    A trunk is repeated for each of its completions.
    """
    if not batch.packed and batch.branches_BL is None:
        return as_given(batch)
    texts = _texts(batch)
    if not len(texts.starts_T):
        return as_given(batch)
    lengths_T = texts.trunk_lengths_T + texts.own_lengths_T
    num_columns = int(lengths_T.max())
    columns_M = torch.arange(num_columns, device=lengths_T.device)
    of_trunk_TM = columns_M < texts.trunk_lengths_T[:, None]
    real_TM = columns_M < lengths_T[:, None]
    origins_T = torch.where(
        of_trunk_TM, texts.trunk_starts_T[:, None], (texts.starts_T - texts.trunk_lengths_T)[:, None]
    )
    sources_TM = torch.where(real_TM, origins_T + columns_M, 0)
    predictors_N = texts.text_N * num_columns + batch.position_ids_BL.flatten() - 1
    return Arrangement(
        input_ids_RM=torch.where(real_TM, batch.input_ids_BL.flatten()[sources_TM], 0),
        position_ids_RM=None,
        real_RM=real_TM,
        predictors_N=predictors_N.clamp(0, real_TM.numel() - 1),
        counted_RM=real_TM & (~of_trunk_TM | texts.is_first_T[:, None]),
    )


def with_padding_apart(rows: Arrangement) -> Arrangement:
    """The same rows with positions that start anew at each place of padding.

    Where a text's length counts, padding does not make it longer.
    """
    columns_M = torch.arange(rows.real_RM.shape[1], device=rows.real_RM.device)
    positions_RM = columns_M.expand_as(rows.real_RM) if rows.position_ids_RM is None else rows.position_ids_RM
    return replace(rows, position_ids_RM=torch.where(rows.real_RM, positions_RM, 0))


def _without_padding(rows: Arrangement) -> Arrangement:
    """The same texts one after another in one row."""
    real_N = rows.real_RM.flatten()
    places_N = (real_N.cumsum(0) - 1).clamp_min(0)
    columns_M = torch.arange(rows.real_RM.shape[1], device=real_N.device)
    return Arrangement(
        input_ids_RM=rows.input_ids_RM.flatten()[real_N][None],
        position_ids_RM=columns_M.expand_as(rows.real_RM).flatten()[real_N][None],
        real_RM=real_N[real_N][None],
        predictors_N=places_N[rows.predictors_N],
        counted_RM=rows.counted_RM.flatten()[real_N][None],
    )


@dataclass(frozen=True)
class _Texts:
    """The texts of a batch, in the order of their own tokens: a completion, or a document without any."""

    starts_T: Tensor
    """Index in the flattened batch of the first token of its own."""
    own_lengths_T: Tensor
    trunk_starts_T: Tensor
    trunk_lengths_T: Tensor
    is_first_T: Tensor
    """Whether it is the first of its document."""
    text_N: Tensor
    """Which text each token is of; a trunk's tokens are of the first one that goes on from it."""


def _texts(batch: Batch) -> _Texts:
    real_N = batch.document_ids_BL.flatten() > 0
    positions_N, branches_N = batch.position_ids_BL.flatten(), _branches(batch).flatten()
    is_document_start_N = _document_starts(batch)
    document_N = (is_document_start_N.cumsum(0) - 1).clamp_min(0)
    document_starts_G = is_document_start_N.nonzero().squeeze(1)
    in_branch_N = real_N & (branches_N > 0)
    branched_G = torch.bincount(document_N[in_branch_N], minlength=len(document_starts_G)) > 0
    # A document without completions is a text by itself, all of it its own.
    own_N = in_branch_N if bool(branched_G.all()) else in_branch_N | (real_N & ~branched_G[document_N])
    is_start_N = own_N & (_branch_starts(batch) | (is_document_start_N & (branches_N == 0)))
    starts_T = is_start_N.nonzero().squeeze(1)
    numbers_N = is_start_N.cumsum(0)
    document_T = document_N[starts_T]
    return _Texts(
        starts_T=starts_T,
        own_lengths_T=torch.bincount(numbers_N[own_N] - 1, minlength=len(starts_T)),
        trunk_starts_T=document_starts_G[document_T],
        trunk_lengths_T=positions_N[starts_T],
        is_first_T=torch.diff(document_T, prepend=document_T.new_full((1,), -1)) != 0,
        text_N=numbers_N - own_N.long(),
    )


def _branch_starts(batch: Batch) -> Tensor:
    """bool [N]: first tokens of completions."""
    branches_N, documents_N = _branches(batch).flatten(), batch.document_ids_BL.flatten()
    is_new_N = torch.ones_like(branches_N, dtype=torch.bool)
    # The first token of a row is of a trunk, so that no row's border is taken for nothing.
    is_new_N[1:] = (branches_N[1:] != branches_N[:-1]) | (documents_N[1:] != documents_N[:-1])
    return is_new_N & (branches_N > 0)


def _document_starts(batch: Batch) -> Tensor:
    """bool [N]: first tokens of documents. Positions of padding count from 0, too."""
    return ((batch.document_ids_BL > 0) & (batch.position_ids_BL == 0)).flatten()


def _branches(batch: Batch) -> Tensor:
    return batch.branches_BL if batch.branches_BL is not None else torch.zeros_like(batch.document_ids_BL)
