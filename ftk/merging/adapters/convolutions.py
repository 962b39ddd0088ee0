"""What adapters of convolutions are, where it differs from those of matrices.

Shapes: O outputs and I inputs of a convolution in G groups, whose weight is [O, I / G, kernel...]; R rank.
"""

from collections.abc import Sequence

from torch import Tensor


def num_groups(a_shape: Sequence[int], b_shape: Sequence[int]) -> int:
    """Groups of the convolution of which these are a LoRA's factors, [R, I, kernel...] and [O, R / G, 1...]."""
    return a_shape[0] // b_shape[1] if b_shape[1] > 0 and a_shape[0] % b_shape[1] == 0 else 1


def kernel_factors(values: Tensor, shape: Sequence[int], *, scales_inputs: bool) -> Tensor:
    """What each weight is multiplied by where IA3's `values` scale inputs, [1, I, 1...], or outputs, [1, O, 1...].

    Source: Liu et al. 2022 (arXiv:2205.05638), section 3.3; each group reads inputs of its own.
    """
    if not scales_inputs:
        return values.transpose(0, 1)
    num_inputs, kernel = shape[1], values.shape[2:]
    by_group = values.view(-1, 1, num_inputs, *kernel)
    groups = len(by_group)
    return by_group.expand(groups, shape[0] // groups, num_inputs, *kernel).reshape(shape[0], num_inputs, *kernel)
