"""In which number format a run computes, and how its weights are stored meanwhile."""

from typing import Literal

import torch
from torch import nn

from ftk.core.errors import SetupError

Precision = Literal["fp32", "bf16", "fp16"]

FROZEN_DTYPES: dict[Precision, torch.dtype] = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}
"""How weights that do not move are stored. Those that move are float32 under every precision."""


def resolve_precision(asked: Literal["auto", "fp32", "bf16", "fp16"], device: torch.device) -> Precision:
    """The number format of the computation on `device`; `auto` is bf16 on an accelerator that has it, else fp32.

    Raises:
        SetupError: the device cannot compute in the format that was asked for.
    """
    if asked == "auto":
        return "bf16" if _has_bf16(device) else "fp32"
    if asked == "fp16" and device.type == "cpu":
        raise SetupError(
            "training.precision: fp16 needs an accelerator, and there is none here. Use fp32, bf16 or auto on a CPU"
        )
    if asked == "bf16" and device.type != "cpu" and not _has_bf16(device):
        raise SetupError(
            f"training.precision: bf16 is not supported by this accelerator ({device}). Use fp16, fp32 or auto"
        )
    return asked


def _has_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "xpu"


def store_trained_in_float32(model: nn.Module) -> None:
    """Store in float32 every 16-bit parameter that is trained.

    A step of AdamW is about the learning rate times the weight, and bfloat16 resolves 1/256 of a weight: small
    updates of 16-bit weights vanish without a trace.
    """
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.dtype in (torch.bfloat16, torch.float16):
            parameter.data = parameter.data.float()
