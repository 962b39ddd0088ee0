"""Attention as CUDA kernels allocate for it, in place of the CPU's.

A CPU build of torch cannot imagine tensors on CUDA, and its own kernel of scaled_dot_product_attention repeats grouped
keys and values, which those of CUDA do not.

Shapes: B rows, H heads, G heads of keys and values, L places, D width of a head.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

BLOCK = 128
"""Places to which flash attention rounds up what it keeps a number of for each."""


@contextmanager
def gpu_attention(*, masks: bool) -> Iterator[None]:
    """Within, scaled_dot_product_attention allocates what the kernels of CUDA do.

    It is put in the place of torch's own, as a TorchFunctionMode is not there where checkpointed layers run again.

    Args:
        masks: whether masks are numbers in memory, as all but flash attention's rows of varying length have them.

    Source: `mha_fwd` and `mha_bwd` of flash attention 2 (csrc/flash_attn/flash_api.cpp), which torch contains: kept are
    query, key, value, output and one float32 a place and head; for the while there are sums in float32 as large as the
    query, and with grouped heads gradients of keys and values for every head.
    """
    own = F.scaled_dot_product_attention

    def attend(
        query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, *settings: Any, **named: Any
    ) -> Tensor:
        mask = attn_mask if masks else None
        made: Tensor = _Attention.apply(  # type: ignore[no-untyped-call]
            _as_computed(query), _as_computed(key), _as_computed(value), mask
        )
        return made

    setattr(F, "scaled_dot_product_attention", attend)  # noqa: B010  # a function of another signature
    try:
        yield
    finally:
        F.scaled_dot_product_attention = own


def _as_computed(tensor: Tensor) -> Tensor:
    return tensor.to(torch.get_autocast_dtype("cpu")) if torch.is_autocast_enabled("cpu") else tensor


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query_BHLD: Tensor, key_BGLD: Tensor, value_BGLD: Tensor, mask: Tensor | None) -> Tensor:
        rows, heads, places, _ = query_BHLD.shape
        if mask is not None and mask.dtype == torch.bool:
            # Kernels add masks to scores, so that truths become numbers first.
            mask = query_BHLD.new_empty(mask.shape)
        output_BLHD = query_BHLD.new_empty((rows, places, heads, value_BGLD.shape[-1]))
        sums_BHL = query_BHLD.new_empty((rows, heads, places), dtype=torch.float32)
        output_BHLD = output_BLHD.transpose(1, 2)
        ctx.save_for_backward(query_BHLD, key_BGLD, value_BGLD, output_BHLD, sums_BHL, mask)
        return output_BHLD

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        query_BHLD, key_BGLD, value_BGLD, _, _, _ = ctx.saved_tensors
        rows, heads, places, width = query_BHLD.shape
        rounded = -(-places // BLOCK) * BLOCK
        dots_BHL = query_BHLD.new_empty((rows, heads, rounded), dtype=torch.float32)
        sums_BHLD = query_BHLD.new_empty((rows, heads, rounded, width), dtype=torch.float32)
        of_query = query_BHLD.new_empty(query_BHLD.shape)
        of_key, of_value = key_BGLD.new_empty(key_BGLD.shape), value_BGLD.new_empty(value_BGLD.shape)
        if heads != key_BGLD.shape[1]:
            shape = (rows, heads, *key_BGLD.shape[2:])
            of_each = key_BGLD.new_empty(shape), value_BGLD.new_empty(shape)
            del of_each
        del dots_BHL, sums_BHLD
        return of_query, of_key, of_value, None
