"""The product of LLM.int8() on imagined weights: what bitsandbytes allocates for it on a CPU, and on CUDA.

While it trains on a CPU, bitsandbytes takes the weights out of their format and multiplies plain numbers
(`MatMul8bitFp`); on CUDA, and on a CPU while it does not train, it multiplies integers (`MatMul8bitLt`), for which it
looks at the inputs' size. Imagined inputs have none: they are taken to have no outliers, as most rows have.

Shapes: T tokens, I and O features of a matrix's inputs and outputs.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


@contextmanager
def gpu_product() -> Iterator[None]:
    """Within, training multiplies int8 weights as on CUDA, where it would as on a CPU."""
    import bitsandbytes.autograd._functions as functions

    own = functions.MatMul8bitFp
    functions.MatMul8bitFp = functions.MatMul8bitLt
    try:
        yield
    finally:
        functions.MatMul8bitFp = own


def eight_bit_substitutes() -> dict[Any, Any]:
    """By operation, of bitsandbytes, which must be imported."""
    operations = torch.ops.bitsandbytes
    return {
        operations.int8_vectorwise_quant.default: quantize_rows,
        operations.int8_scaled_mm.default: multiply_integers,
        operations.int8_mixed_scaled_mm.default: multiply_mixed,
    }


def quantize_rows(inputs_TI: Tensor, threshold: float = 0.0) -> tuple[Tensor, Tensor, Tensor | None]:
    """Inputs in eight bits, a constant a row, and the columns with outliers, of which there are none.

    Source: `int8_vectorwise_quant` of bitsandbytes 0.50, backends/cuda/ops.py.
    """
    constants_T = inputs_TI.new_empty(inputs_TI.shape[:-1], dtype=torch.float32)
    packed_TI = inputs_TI.new_empty(inputs_TI.shape, dtype=torch.int8)
    if not threshold:
        return packed_TI, constants_T, None
    outliers_TI = inputs_TI.abs() >= threshold
    columns = inputs_TI.new_empty(0, dtype=torch.int64)
    del outliers_TI
    return packed_TI, constants_T, columns


def multiply_integers(
    inputs_TI: Tensor,
    weights_OI: Tensor,
    input_constants_T: Tensor,
    weight_constants_O: Tensor,
    bias: Tensor | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Sums in 32 bits, from these float16, from these the type that is asked for.

    Source: `int8_linear_matmul` and `int8_mm_dequant` of bitsandbytes 0.50, backends/cuda/ops.py.
    """
    sums_TO = inputs_TI.new_empty((*inputs_TI.shape[:-1], weights_OI.shape[0]), dtype=torch.int32)
    product_TO = sums_TO.new_empty(sums_TO.shape, dtype=torch.float16)
    return product_TO.to(dtype or torch.float16)


def multiply_mixed(
    inputs_TI: Tensor,
    packed_TI: Tensor,
    weights_OI: Tensor,
    input_constants_T: Tensor,
    weight_constants_O: Tensor,
    outlier_columns: Tensor | None = None,
    bias: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The same, and the inputs with outliers, of which there are none.

    Source: `int8_mixed_scaled_mm` of bitsandbytes 0.50, backends/default/ops.py.
    """
    product_TO = multiply_integers(
        packed_TI, weights_OI, input_constants_T, weight_constants_O, bias, dtype=inputs_TI.dtype
    )
    return product_TO, inputs_TI.new_empty(0)
