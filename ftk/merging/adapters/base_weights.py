"""The weights that an adapter is folded into: as they are on disk, or as a quantized base computes with them."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from ftk.core.errors import ModelError, SetupError
from ftk.merging.safetensors_file import TensorSpec
from ftk.merging.stream import Checkpoint

BasePrecision = Literal["dequantized", "original"]
_BNB_STATE = "quant_state.bitsandbytes__"
_PARTS_4BIT = ("absmax", "quant_map", "nested_absmax", "nested_quant_map")
_PARTS_8BIT = ("SCB", "weight_format")


@dataclass(frozen=True)
class BitsAndBytes:
    """How bitsandbytes stored the base's weights while the adapter was trained."""

    name: Literal["nf4", "fp4", "int8"]
    double: bool = True
    """Whether the constants of four-bit blocks are quantized too."""
    dtype: torch.dtype = torch.bfloat16
    """What the weights were before, and what they are dequantized to."""


class BaseWeights(Protocol):
    """Tensors by their names on disk."""

    @property
    def specs(self) -> Mapping[str, TensorSpec]:
        """What `read` returns, and in which dtype a merged model shall store it."""

    def read(self, name: str) -> Tensor:
        """The tensor, not to be written to."""


@dataclass(frozen=True)
class AsStored:
    """Every tensor as it is on disk; a broken one is refused."""

    checkpoint: Checkpoint

    @cached_property
    def specs(self) -> Mapping[str, TensorSpec]:
        return {name: TensorSpec(place.dtype, place.shape) for name, place in self.checkpoint.tensors.items()}

    def read(self, name: str) -> Tensor:
        weight = self.checkpoint.read(name)
        self.checkpoint.require_finite(name, weight)
        return weight


@dataclass(frozen=True)
class QuantizedOnLoad:
    """A 16- or 32-bit base that was quantized as it was loaded: some weights come as what that made of them.

    The bytes on disk and bitsandbytes' own code say what that is: each such tensor is quantized and dequantized again.
    """

    checkpoint: Checkpoint
    quantized: Mapping[str, bool]
    """Names of tensors that are, and whether they are stored as [inputs, outputs]."""
    format: BitsAndBytes

    @property
    def specs(self) -> Mapping[str, TensorSpec]:
        return AsStored(self.checkpoint).specs

    def read(self, name: str) -> Tensor:
        weight = AsStored(self.checkpoint).read(name)
        if name not in self.quantized:
            return weight
        # As transformers hands it over: in the dtype of loading, outputs first.
        transposed = self.quantized[name]
        given = (weight.T if transposed else weight).to(self.format.dtype, copy=True).contiguous()
        restored = _through_int8(given) if self.format.name == "int8" else _through_4bit(given, self.format)
        return restored.T if transposed else restored


@dataclass(frozen=True)
class StoredInFewBits:
    """A base whose files hold what bitsandbytes made of its weights."""

    checkpoint: Checkpoint
    dtype: torch.dtype
    """In which to store weights that were in eight bits; those in four know theirs."""
    transposed: frozenset[str] = frozenset()
    """Names of weights that the model has as [inputs, outputs]: in few bits they are stored the other way round."""

    @cached_property
    def specs(self) -> Mapping[str, TensorSpec]:
        found = {}
        for name, place in self.checkpoint.tensors.items():
            if not self._is_part(name):
                found[name] = TensorSpec(place.dtype, place.shape)
            if f"{name.removesuffix('.weight')}.SCB" in self.checkpoint.tensors and name.endswith(".weight"):
                found[name] = TensorSpec(self.dtype, self._turned(name, place.shape))
            elif self._state_name(name) is not None:
                state = self._state(name)
                found[name] = TensorSpec(state.dtype, self._turned(name, tuple(state.shape)))
        return found

    def _turned(self, name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        return shape[::-1] if name in self.transposed else shape

    def read(self, name: str) -> Tensor:
        weight = self.checkpoint.read(name)
        scales = f"{name.removesuffix('.weight')}.SCB"
        functional = _bitsandbytes().functional
        if name.endswith(".weight") and scales in self.checkpoint.tensors:
            restored: Tensor = functional.int8_vectorwise_dequant(weight.clone(), self.checkpoint.read(scales).clone())
        elif self._state_name(name) is not None:
            restored = functional.dequantize_4bit(weight.clone(), self._state(name))
        else:
            return weight
        return restored.T if name in self.transposed else restored

    def _is_part(self, name: str) -> bool:
        weight, _, part = name.rpartition(".")
        if part in _PARTS_8BIT:
            return f"{weight}.weight" in self.checkpoint.tensors
        return part in _PARTS_4BIT or f".{_BNB_STATE}" in name

    def _state_name(self, name: str) -> str | None:
        names = (f"{name}.{_BNB_STATE}{kind}" for kind in ("nf4", "fp4"))
        return next((state for state in names if state in self.checkpoint.tensors), None)

    def _state(self, name: str) -> Any:
        state_name = self._state_name(name)
        parts = [part for part in _PARTS_4BIT if f"{name}.{part}" in self.checkpoint.tensors]
        stored = {part: self.checkpoint.read(f"{name}.{part}").clone() for part in parts}
        assert state_name is not None
        stored[state_name.removeprefix(f"{name}.")] = self.checkpoint.read(state_name).clone()
        return _bitsandbytes().functional.QuantState.from_dict(stored, device=torch.device("cpu"))


def is_stored_in_few_bits(config: Mapping[str, Any], where: str) -> bool:
    """Whether the files of a model hold quantized weights, by its config.json.

    Raises:
        ModelError: they do, in a format other than bitsandbytes'.
    """
    settings = config.get("quantization_config")
    if not settings:
        return False
    method = str(settings.get("quant_method", "bitsandbytes"))
    if not method.startswith("bitsandbytes"):
        raise ModelError(
            f"{where} holds weights quantized by {method}, which ftk cannot fold adapters into. Name the 16-bit model "
            "it was made from with --base"
        )
    return True


def _through_4bit(weight: Tensor, how: BitsAndBytes) -> Tensor:
    functional = _bitsandbytes().functional
    packed, state = functional.quantize_4bit(
        weight, blocksize=64, compress_statistics=how.double, quant_type=how.name, quant_storage=torch.uint8
    )
    restored: Tensor = functional.dequantize_4bit(packed, state)
    return restored


def _through_int8(weight: Tensor) -> Tensor:
    functional = _bitsandbytes().functional
    # bitsandbytes makes eight bits of float16, whatever it is given.
    packed, scales, _ = functional.int8_vectorwise_quant(weight.to(torch.float16))
    restored: Tensor = functional.int8_vectorwise_dequant(packed, scales)
    return restored


def _bitsandbytes() -> Any:
    try:
        import bitsandbytes
    except ImportError as error:
        raise SetupError(
            "the base's weights are quantized by bitsandbytes, which is not installed: pip install bitsandbytes"
        ) from error
    return bitsandbytes
