"""What an adapter does to a weight, as formulas on plain tensors.

Shapes: O rows and I columns of a weight, R rank, E experts, N tokens of a vocabulary, D width of an embedding.
All is computed in float32; what is written to is the caller's own buffer.
"""

import math

import torch
from torch import Tensor


def add_low_rank(weight_OI: Tensor, a_RI: Tensor, b_OR: Tensor, *, scaling: float) -> Tensor:
    """`weight + scaling * b @ a`, in the memory of `weight`.

    Source: Hu et al. 2021 (arXiv:2106.09685), equation 3; the scaling alpha / rank, or alpha / sqrt(rank):
    Kalajdzievski 2023 (arXiv:2312.03732).
    """
    return weight_OI.addmm_(b_OR.float(), a_RI.float(), alpha=scaling)


def set_magnitude(weight_OI: Tensor, magnitude_O: Tensor) -> Tensor:
    """Each row brought to the length `magnitude`, in the memory of `weight`, to which the update was added before.

    Source: Liu et al. 2024 (arXiv:2402.09353), equation 5.
    """
    norms_O = torch.linalg.vector_norm(weight_OI, dim=1)
    return weight_OI.mul_((magnitude_O.float() / norms_O)[:, None])


def expert_factors(a: Tensor, b: Tensor, *, expert: int, num_experts: int) -> tuple[Tensor, Tensor]:
    """The factors [R, I] and [O, R] of one expert, from those that hold all experts.

    PEFT stacks the experts in `a` one after another, [E * R, I], and in `b` interleaved, [O, R * E].
    """
    rank = a.shape[0] // num_experts
    return a[expert * rank : (expert + 1) * rank], b.view(b.shape[0], rank, num_experts)[:, :, expert]


def vera_factors(
    lambda_b_O: Tensor, lambda_d_R: Tensor, projection_a: Tensor, projection_b: Tensor, *, num_columns: int
) -> tuple[Tensor, Tensor]:
    """The factors [R, I] and [O, R] that scaled slices of the shared projections amount to.

    Source: Kopiczko et al. 2023 (arXiv:2310.11454), equation 2.
    """
    a_RI = lambda_d_R.float()[:, None] * projection_a[:, :num_columns].float()
    b_OR = lambda_b_O.float()[:, None] * projection_b[: len(lambda_b_O)].float()
    return a_RI, b_OR


def vera_projections(*, rank: int, num_rows: int, num_columns: int, seed: int) -> tuple[Tensor, Tensor]:
    """The shared projections [R, columns] and [rows, R] that PEFT draws from a seed, uniform after Kaiming.

    Source: PEFT's `VeraModel`, which leaves them out of the adapter where `save_projection` is false.
    """
    generator = torch.Generator(device="cpu").manual_seed(seed)
    projections = []
    for shape in ((rank, num_columns), (num_rows, rank)):
        bound = math.sqrt(3.0) * (math.sqrt(2.0) / math.sqrt(shape[1]))
        projections.append(torch.empty(shape).uniform_(-bound, bound, generator=generator))
    return projections[0], projections[1]


def singular_values(matrix_OI: Tensor) -> tuple[Tensor, Tensor]:
    """Singular values in falling order, and the singular vectors of the shorter side as columns, in float64.

    From the eigenvalues of the smaller of the two Gram matrices, in a fraction of a decomposition's time; float64 makes
    up for the squares: a value of a hundred-millionth of the largest is still told from zero.
    """
    matrix = matrix_OI.double()
    matrix = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    squares, vectors = torch.linalg.eigh(matrix @ matrix.T)
    return squares.flip(0).clamp_min(0).sqrt(), vectors.flip(1)


def low_rank_approximation(matrix_OI: Tensor, *, rank: int) -> tuple[Tensor, Tensor]:
    """The factors [R, I] and [O, R] of the nearest matrix of `rank`, singular values shared evenly between them.

    Source: Eckart and Young 1936 (doi:10.1007/BF02288367).
    """
    return leading_factors(matrix_OI, *singular_values(matrix_OI), rank=rank)


def leading_factors(matrix_OI: Tensor, values: Tensor, vectors: Tensor, *, rank: int) -> tuple[Tensor, Tensor]:
    """The factors [R, I] and [O, R] of the leading `rank` of what `singular_values` found."""
    roots, vectors = values[:rank].sqrt(), vectors[:, :rank]
    is_wide = matrix_OI.shape[0] <= matrix_OI.shape[1]
    matrix = matrix_OI.double() if is_wide else matrix_OI.double().T
    own = vectors * roots
    # What the other side's vectors are, times their values, over the root; a zero stays one.
    other = (vectors.T @ matrix) / torch.where(roots > 0, roots, torch.inf)[:, None]
    a_RI, b_OR = (other, own) if is_wide else (own.T, other.T)
    return a_RI.float().contiguous(), b_OR.float().contiguous()


def recompress(a_RI: Tensor, b_OR: Tensor, *, rank: int) -> tuple[Tensor, Tensor]:
    """The nearest factors of a lower rank to `b @ a`, without making the product."""
    q_b, r_b = torch.linalg.qr(b_OR.float())
    q_a, r_a = torch.linalg.qr(a_RI.float().T)
    inner_a, inner_b = low_rank_approximation(r_b @ r_a.T, rank=rank)
    return (inner_a @ q_a.T).contiguous(), (q_b @ inner_b).contiguous()


def rank_of_energy(values: Tensor, *, energy: float) -> int:
    """The least rank whose singular values hold this share of the sum of squares; 0 for a matrix of zeros."""
    squares = values.double().square()
    if not bool(squares.sum() > 0):
        return 0
    shares = squares.cumsum(0) / squares.sum()
    return min(int((shares < energy).sum()) + 1, len(squares))
