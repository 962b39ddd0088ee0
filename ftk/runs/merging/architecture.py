"""What transformers knows of a model's parameters: which module has them, and how its files hold them."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch

from ftk.core.errors import ModelError
from ftk.merging.adapters.architecture import Architecture, Piece
from ftk.models.load import load_config
from ftk.models.settings import ModelSettings


def architecture_of(settings: ModelSettings, on_disk: Mapping[str, tuple[int, ...]]) -> Architecture:
    """Ask the model's own code, without its weights.

    Args:
        settings: which model.
        on_disk: shapes of the tensors in its files.

    Raises:
        ModelError: its configuration cannot be used for a causal language model.
    """
    from transformers import AutoModelForCausalLM
    from transformers.pytorch_utils import Conv1D

    config = load_config(settings)
    if hasattr(config, "quantization_config"):
        # What the modules are called and hold does not depend on how they are stored.
        del config.quantization_config
    try:
        with torch.device("meta"):
            model: Any = AutoModelForCausalLM.from_config(config, trust_remote_code=settings.trust_remote_code)
    except (ValueError, KeyError, TypeError, AttributeError, ImportError) as error:
        raise ModelError(f"{settings.id} is no causal language model that can be built: {error}") from error
    pieces, unread = _pieces(model, on_disk)
    return Architecture(
        pieces=pieces,
        shapes={name: tuple(tensor.shape) for name, tensor in model.state_dict().items()},
        conv1d=frozenset(name for name, module in model.named_modules() if isinstance(module, Conv1D)),
        own_parameters={
            name: tuple(own for own, _ in module.named_parameters(recurse=False))
            for name, module in model.named_modules()
        },
        transposed_experts=frozenset(
            name for name, module in model.named_modules() if getattr(module, "is_transposed", False) is True
        ),
        tied=dict(model.all_tied_weights_keys),
        unread=unread,
        quantizable=_quantizable(model),
        is_known=True,
    )


def _pieces(model: Any, on_disk: Mapping[str, tuple[int, ...]]) -> tuple[dict[str, Piece], dict[str, str]]:
    """What each tensor on disk holds, and parameters that are made of theirs in a way that cannot be followed."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, WeightRenaming, dot_natural_key, rename_source_key

    transforms = get_model_conversion_mapping(model)
    renamings = [one for one in transforms if isinstance(one, WeightRenaming)]
    converters = [one for one in transforms if isinstance(one, WeightConverter)]
    by_pattern = {pattern: one for one in converters for pattern in one.source_patterns}
    parameters = model.state_dict()
    prefix = model.base_model_prefix
    pieces: dict[str, Piece] = {}
    unread: dict[str, str] = {}
    seen: Counter[tuple[str, str]] = Counter()
    # In the order in which transformers numbers experts.
    for name in sorted(on_disk, key=dot_natural_key):
        renamed, pattern = rename_source_key(name, renamings, converters, prefix, parameters)
        if renamed not in parameters and name in parameters:
            renamed, pattern = rename_source_key(name, [], [], prefix, parameters)
        if pattern is None or renamed not in parameters:
            pieces[name] = Piece(renamed)
            continue
        converter = by_pattern[pattern]
        piece = _converted(renamed, converter, pattern, seen[renamed, pattern], on_disk[name])
        seen[renamed, pattern] += 1
        if piece is None:
            unread[renamed] = f"transformers makes it of {name} and others by {_operations(converter)}"
            pieces[name] = Piece(name)
        else:
            pieces[name] = piece
    return pieces, unread


def _converted(parameter: str, converter: Any, pattern: str, number: int, shape: tuple[int, ...]) -> Piece | None:
    """Part of a parameter, where it is made by stacking experts and by putting rows below rows; else None."""
    from transformers.core_model_loading import Concatenate, MergeModulelist

    stacks = concatenates = False
    for operation in converter.operations:
        if isinstance(operation, MergeModulelist) and operation.dim == 0 and not (stacks or concatenates):
            stacks = True
        elif isinstance(operation, Concatenate) and operation.dim == int(stacks) and not concatenates:
            concatenates = True
        else:
            return None
    if len(converter.target_patterns) != 1 or (not concatenates and len(converter.source_patterns) != 1):
        return None
    expert = number if stacks else None
    if not concatenates:
        return Piece(parameter, expert)
    # Gate above up: both have as many rows.
    return Piece(parameter, expert, converter.source_patterns.index(pattern) * shape[0], shape[0])


def _operations(converter: Any) -> str:
    return ", ".join(type(operation).__name__ for operation in converter.operations)


def _quantizable(model: Any) -> frozenset[str]:
    """Modules that transformers hands to bitsandbytes as it loads the model."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D
    from transformers.quantizers.base import HfQuantizer
    from transformers.quantizers.quantizers_utils import should_convert_module

    kept = HfQuantizer.get_modules_to_not_convert(model, None, model._keep_in_fp32_modules)
    return frozenset(
        name
        for name, module in model.named_modules()
        if (type(module) is nn.Linear or isinstance(module, Conv1D)) and should_convert_module(name, kept)
    )
