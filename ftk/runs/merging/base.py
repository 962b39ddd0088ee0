"""The base that adapters are folded into: which one, and in how many bits it was beneath them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from ftk.core.errors import ModelError, RecipeError
from ftk.merging.adapters.adapter import CONFIG as ADAPTER_CONFIG
from ftk.merging.adapters.adapter import Adapter, read_adapter
from ftk.merging.adapters.architecture import Architecture, as_named
from ftk.merging.adapters.base_weights import (
    AsStored,
    BasePrecision,
    BaseWeights,
    BitsAndBytes,
    QuantizedOnLoad,
    StoredInFewBits,
    is_stored_in_few_bits,
)
from ftk.merging.stream import Checkpoint
from ftk.models.locate import ModelPlace, locate
from ftk.models.settings import ModelSettings
from ftk.runs.merging.adapter_folder import find_adapter
from ftk.runs.merging.architecture import architecture_of
from ftk.runs.merging.configuration import read_config

QuantizationName = Literal["nf4", "fp4", "nf4-single", "fp4-single", "int8"]
"""`single`: bitsandbytes was not told to quantize the constants of the blocks too."""
_FOUR_BITS: Mapping[str, Literal["nf4", "fp4"]] = {
    "nf4": "nf4",
    "nf4-single": "nf4",
    "fp4": "fp4",
    "fp4-single": "fp4",
}
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_DTYPE_NAMES = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}


@dataclass(frozen=True)
class Base:
    """A base model as the fold reads it."""

    place: ModelPlace
    weights: BaseWeights
    architecture: Architecture
    config: Mapping[str, Any]
    """Its config.json."""
    was_quantized: BitsAndBytes | None
    """How it was stored while the adapters were trained; None for 16 or 32 bits, or where nothing tells."""
    precision: BasePrecision
    """Which of its weights were taken; `original` where it never was quantized."""


def open_adapters(names: Sequence[str]) -> list[Adapter]:
    """The adapters in folders, runs or hub repositories.

    Raises:
        ModelError: one is not there, is a whole model, or cannot be folded.
    """
    return [read_adapter(find_adapter(name)) for name in names]


def open_base(
    name: str | None,
    adapters: Sequence[Adapter],
    *,
    precision: BasePrecision,
    quantization: QuantizationName | None = None,
    trust_remote_code: bool = False,
) -> Base:
    """The base of some adapters.

    Args:
        name: folder, `ftk://` name or hub id; None for the one that the adapters name.
        adapters: what will be folded into it.
        precision: for a base that was in few bits: what that made of its weights, or the 16-bit ones.
        quantization: how it was stored in training, where no recipe of a run tells; None asks the recipe.
        trust_remote_code: whether Python code that comes with the base may run.

    Raises:
        ModelError: it is not to be had, it is an adapter, or its weights are in a form that nothing can be folded into.
        RecipeError: the adapters were trained on different bases, or above weights stored differently.
    """
    settings = base_settings(name, adapters, trust_remote_code=trust_remote_code)
    place = locate(settings)
    if place.adapter_folder is not None:
        raise ModelError(f"the base {settings.id} is an adapter itself. Merge that one first, and name the result")
    config = read_config(place.folder)
    checkpoint = Checkpoint(place.folder)
    shapes = {name: tensor.shape for name, tensor in checkpoint.tensors.items()}
    was_quantized = _format_in_training(adapters, quantization, precision, config)
    in_few_bits = is_stored_in_few_bits(config, str(place.folder))
    if in_few_bits and precision == "original":
        raise ModelError(
            f"{place.name} holds its weights in few bits alone, and --base-precision original needs the 16-bit ones. "
            "Name the model that it was made from with --base"
        )
    architecture = as_named(shapes)
    takes_quantized = was_quantized is not None and not in_few_bits and precision == "dequantized"
    may_be_transposed = in_few_bits and "gpt" in str(config.get("model_type"))
    if takes_quantized or may_be_transposed or _needs_architecture(adapters, shapes, config):
        architecture = architecture_of(settings, shapes)
    weights: BaseWeights = AsStored(checkpoint)
    if in_few_bits:
        transposed = {
            name
            for name, piece in architecture.pieces.items()
            if piece.parameter.removesuffix(".weight") in architecture.conv1d
        }
        weights = StoredInFewBits(checkpoint, _dtype_of(config), frozenset(transposed))
    elif takes_quantized:
        assert was_quantized is not None
        quantized = {
            name: piece.parameter.removesuffix(".weight") in architecture.conv1d
            for name, piece in architecture.pieces.items()
            if piece.parameter.removesuffix(".weight") in architecture.quantizable
        }
        weights = QuantizedOnLoad(checkpoint, quantized, was_quantized)
    is_dequantized = in_few_bits or takes_quantized
    return Base(
        place,
        weights,
        architecture,
        config,
        None if in_few_bits else was_quantized,
        "dequantized" if is_dequantized else "original",
    )


def base_settings(name: str | None, adapters: Sequence[Adapter], *, trust_remote_code: bool = False) -> ModelSettings:
    """Which model is the base.

    Raises:
        ModelError: no adapter says its base.
        RecipeError: they say different ones.
    """
    if name is not None:
        return ModelSettings(id=name, trust_remote_code=trust_remote_code)
    named = {str(adapter.config.get("base_model_name_or_path") or ""): adapter for adapter in adapters}
    if "" in named:
        raise ModelError(
            f"the adapter in {named[''].folder} does not say its base. Name it with --base, or put "
            f"base_model_name_or_path into its {ADAPTER_CONFIG}"
        )
    if len(named) > 1:
        listed = "; ".join(f"{adapter.folder}: {base}" for base, adapter in named.items())
        raise RecipeError(f"the adapters were trained on different bases ({listed}). Name the one to take with --base")
    base, adapter = next(iter(named.items()))
    return ModelSettings(id=base, revision=adapter.config.get("revision"), trust_remote_code=trust_remote_code)


def _needs_architecture(
    adapters: Sequence[Adapter], shapes: Mapping[str, tuple[int, ...]], config: Mapping[str, Any]
) -> bool:
    """Whether names and shapes on disk leave open what an adapter changes; asking the model's code takes seconds."""
    num_tokens = config.get("vocab_size")
    names = {name for adapter in adapters for name in adapter.parameters()}
    if any(name not in shapes for name in names) or any(
        adapter.config.get("target_parameters") for adapter in adapters
    ):
        return True
    # Embeddings and heads may be tied, also where the files hold both.
    if num_tokens is None or any(shapes[name][0] == num_tokens for name in names):
        return True
    if not any(adapter.config.get("fan_in_fan_out") for adapter in adapters) and "gpt" not in str(
        config.get("model_type")
    ):
        return False
    return any(len(shapes[name]) == 2 and shapes[name][0] == shapes[name][1] for name in names)


def _format_in_training(
    adapters: Sequence[Adapter], asked: QuantizationName | None, precision: BasePrecision, config: Mapping[str, Any]
) -> BitsAndBytes | None:
    formats = {_format_of_run(adapter.folder) for adapter in adapters}
    if asked is not None:
        dtypes = {one.dtype for one in formats if one is not None}
        return BitsAndBytes(
            _FOUR_BITS.get(asked, "int8"),
            double=not asked.endswith("-single"),
            dtype=dtypes.pop() if len(dtypes) == 1 else _loaded_in(config),
        )
    if len(formats) > 1 and precision == "original":
        return None
    if len(formats) > 1:
        listed = ", ".join(sorted("16 or 32 bits" if one is None else one.name for one in formats))
        raise RecipeError(
            f"the adapters were trained above weights that were stored differently ({listed}), so there is no one base "
            "that all of them fit. Take the 16-bit weights: --base-precision original",
            place="--adapter",
        )
    return formats.pop()


def _format_of_run(folder: Path) -> BitsAndBytes | None:
    """What the recipe of the run that an adapter lies in says of its base."""
    run = next((parent for parent in folder.resolve().parents[:2] if (parent / "recipe.json").is_file()), None)
    if run is None:
        return None
    recipe = json.loads((run / "recipe.json").read_text(encoding="utf-8"))
    quantization = recipe.get("quantization")
    if not quantization:
        return None
    precision = (recipe.get("training") or {}).get("precision", "auto")
    if precision == "auto":
        precision = "bf16" if _had_accelerator(run) else "fp32"
    stored = (recipe.get("model") or {}).get("dtype", "auto")
    return BitsAndBytes(
        quantization["name"], bool(quantization.get("double", True)), _DTYPES[_DTYPE_NAMES.get(stored, precision)]
    )


def _had_accelerator(run: Path) -> bool:
    try:
        environment = json.loads((run / "environment.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return True
    return bool(environment.get("devices"))


def _loaded_in(config: Mapping[str, Any]) -> torch.dtype:
    """What weights were loaded in, where nothing else tells: as they are stored, if in 16 bits."""
    name = str(config.get("dtype") or config.get("torch_dtype")).removeprefix("torch.")
    return torch.float16 if name == "float16" else torch.bfloat16


def _dtype_of(config: Mapping[str, Any]) -> torch.dtype:
    name = str(config.get("dtype") or config.get("torch_dtype") or "float16").removeprefix("torch.")
    return _DTYPES[_DTYPE_NAMES.get(name, "fp16")]
