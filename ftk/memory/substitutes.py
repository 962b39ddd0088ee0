"""What stands for operations that torch cannot run on imagined tensors, or that hide what they allocate.

Each takes the arguments of its operation, and makes the tensors that it would make, in the order in which it would.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ftk.memory.eight_bits import eight_bit_substitutes


def substitutes(device: str, *, with_bitsandbytes: bool) -> dict[Any, Any]:
    """By operation; those of bitsandbytes only where it takes part, as importing it costs a second."""
    found: dict[Any, Any] = {torch.ops.aten._grouped_mm.default: grouped_mm}
    if with_bitsandbytes:
        import bitsandbytes  # noqa: F401  # registers its operations

        found[torch.ops.bitsandbytes.gemm_4bit.default] = multiply_4bit
        found |= eight_bit_substitutes()
        if device == "cpu":
            found[torch.ops.bitsandbytes.optimizer_update_8bit_blockwise.default] = update_8bit
    return found


def grouped_mm(
    first: Tensor, second: Tensor, offsets: Tensor | None = None, bias: Tensor | None = None, dtype: Any = None
) -> Tensor:
    """The product of each group of rows with its own matrix; torch itself imagines it in bfloat16 alone."""
    match first.ndim, second.ndim:
        case 2, 2:
            assert offsets is not None
            shape: Sequence[int] = (offsets.shape[0], first.shape[0], second.shape[1])
        case 2, _:
            shape = (first.shape[0], second.shape[-1])
        case _, 2:
            shape = (first.shape[1], second.shape[1])
        case _:
            shape = (*first.shape[:2], second.shape[-1])
    return first.new_empty(shape, dtype=dtype or first.dtype)


def multiply_4bit(
    inputs: Tensor,
    packed: Tensor,
    shape: Sequence[int],
    absmax: Tensor,
    blocksize: int,
    quant_type: str,
    bias: Tensor | None = None,
    absmax_8bit: Tensor | None = None,
    absmax_code: Tensor | None = None,
    absmax_offset: Tensor | None = None,
) -> Tensor:
    """The four-bit product where there is no kernel of its own: weights are unpacked for the while.

    Source: `_gemm_4bit_default_impl` of bitsandbytes 0.50, backends/default/ops.py; on CUDA so above 1,536 tokens.
    """
    constants = absmax
    if absmax_8bit is not None:
        constants = inputs.new_empty(absmax_8bit.shape, dtype=torch.float32) + 0.0
    weights = inputs.new_empty(tuple(shape))
    product = nn.functional.linear(inputs, weights, bias)
    del constants, weights
    return product


def update_8bit(
    optimizer_name: str, gradient: Tensor, parameter: Tensor, state1: Tensor, state2: Tensor | None, *others: Any
) -> None:
    """An update of eight-bit states on a CPU, which unpacks them all for the while; a GPU does it in place.

    Source: `_optimizer_update_8bit_blockwise_cpu` of bitsandbytes 0.50, backends/cpu/ops.py.
    """
    first = state1.new_empty(state1.shape, dtype=torch.float32)
    second = state2.new_empty(state2.shape, dtype=torch.float32) if state2 is not None else None
    scaled = gradient.float() * 1.0
    moved = parameter.detach().float()
    if second is not None:
        root = second.sqrt() / 1.0
        root.add_(1e-8)
        moved.addcdiv_(first, root)
    packed = state1.new_empty(state1.shape)
    del packed, scaled
