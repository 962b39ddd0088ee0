"""Quantized weights without numbers: bitsandbytes' own layers above imagined bytes, as many as it would store."""

from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from ftk.memory.stored import NESTED_BLOCK


def quantize_imagined(model: Any, config: Any, fake: FakeTensorMode, *, dtype: torch.dtype) -> None:
    """Put quantized layers where transformers would, with imagined storage.

    Args:
        model: a transformers model whose weights are imagined.
        config: the BitsAndBytesConfig with which it would be loaded.
        fake: the mode in which they were made.
        dtype: of what is not quantized, biases among it.
    """
    from bitsandbytes.nn import Linear4bit, Linear8bitLt
    from transformers.integrations.bitsandbytes import replace_with_bnb_linear
    from transformers.quantizers.base import HfQuantizer

    kept = HfQuantizer.get_modules_to_not_convert(model, config.llm_int8_skip_modules, model._keep_in_fp32_modules)
    replace_with_bnb_linear(model, modules_to_not_convert=kept, quantization_config=config)
    with fake:
        for module in model.modules():
            if not isinstance(module, Linear4bit | Linear8bitLt):
                continue
            shape = (module.out_features, module.in_features)
            if isinstance(module, Linear4bit):
                _fill_4bit(module, shape, double=config.bnb_4bit_use_double_quant, dtype=dtype)
            else:
                _fill_8bit(module, shape)
            if module.bias is not None:
                module.bias = nn.Parameter(torch.empty(shape[0], dtype=dtype), requires_grad=False)
    setattr(model, "is_loaded_in_4bit" if config.load_in_4bit else "is_loaded_in_8bit", True)


def _fill_4bit(module: Any, shape: tuple[int, int], *, double: bool, dtype: torch.dtype) -> None:
    """Two weights a byte in blocks of 64, whose constants are float32 or again a byte each."""
    from bitsandbytes.functional import QuantState

    num_weights, block = shape[0] * shape[1], 64
    num_blocks = -(-num_weights // block)
    outer = None
    if double:
        outer = QuantState(
            absmax=torch.empty(-(-num_blocks // NESTED_BLOCK)),
            code=torch.empty(256),
            blocksize=NESTED_BLOCK,
            dtype=torch.float32,
        )
    state = QuantState(
        absmax=torch.empty(num_blocks, dtype=torch.uint8 if double else torch.float32),
        shape=torch.Size(shape),
        code=torch.empty(16),
        blocksize=block,
        quant_type="nf4",
        dtype=dtype,
        offset=torch.empty(()) if double else None,
        state2=outer,
    )
    weight: Any = nn.Parameter(torch.empty((-(-num_weights // 2), 1), dtype=torch.uint8), requires_grad=False)
    weight.quant_state, weight.compress_statistics, weight.quant_type = state, double, "nf4"
    module.weight, module.quant_state = weight, state


def _fill_8bit(module: Any, shape: tuple[int, int]) -> None:
    """A byte a weight, and a float32 constant a row."""
    weight: Any = nn.Parameter(torch.empty(shape, dtype=torch.int8), requires_grad=False)
    weight.CB = weight.SCB = None
    weight.has_fp16_weights = False
    module.weight = weight
    module.state.CB, module.state.SCB = weight.data, torch.empty(shape[0])


def quantized_constants(model: nn.Module) -> list[Tensor]:
    """What quantized layers keep beside their weights, which is no parameter of theirs."""
    found: list[Tensor] = []
    for module in model.modules():
        state: Any = getattr(module, "quant_state", None)
        if state is not None:
            found += [state.absmax, state.code]
            found += [state.offset, state.state2.absmax, state.state2.code] if state.nested else []
        state = getattr(module, "state", None)
        if getattr(state, "SCB", None) is not None:
            found += [state.CB, state.SCB]
    return found
