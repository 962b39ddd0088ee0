"""Whether a model turns its features by the frequencies that a recipe asks for, looked up in the model itself.

Shapes: F frequencies.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ftk.core.errors import ModelError
from ftk.models.context import ContextSettings
from ftk.models.extend import rotaries_of


def require_extended(model: Any, original: Any, settings: ContextSettings, *, name: str) -> None:
    """Make sure that the architecture reads its configuration as ftk wrote it.

    Args:
        model: loaded with the extended configuration.
        original: the configuration before.

    Raises:
        ModelError: its frequencies are others.
    """
    for kind, rotary in rotaries_of(original, settings, name=name).items():
        wanted_F, scale = settings.way.frequencies(rotary)
        held = list(held_frequencies(model, kind))
        if not held or not all(_equal(frequencies_F, wanted_F) and factor == scale for frequencies_F, factor in held):
            raise ModelError(
                f"{type(model).__name__} does not turn its positions as model.context.scaling: "
                f"{settings.way.name} says, so the scaling would have no effect, or another. Try another scaling, "
                "or leave model.context out",
                place="model.context.scaling",
            )


def rotary_embeddings(model: Any) -> dict[str, Any]:
    """The modules of a model that turn the features of text by positions; a part for pictures may have others."""
    kind = type(model.config.get_text_config(decoder=True))
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(getattr(module, "config", None), kind)
        and any(own.endswith("inv_freq") for own, _ in module.named_buffers(recurse=False))
    }


def held_frequencies(model: Any, kind: str = "") -> Iterator[tuple[Tensor, float]]:
    """Inverse frequencies, float32 [F], of each rotary embedding in a model, and the factor on cosines and sines.

    Args:
        kind: of the layers, where they have positions of several kinds.
    """
    prefix = f"{kind}_" if kind else ""
    for module in rotary_embeddings(model).values():
        frequencies_F = getattr(module, f"{prefix}inv_freq", None)
        if isinstance(frequencies_F, Tensor):
            yield frequencies_F.float().cpu(), float(getattr(module, f"{prefix}attention_scaling", 1.0))


def _equal(left_F: Tensor, right_F: Tensor) -> bool:
    return left_F.shape == right_F.shape and torch.allclose(left_F, right_F, rtol=1e-5, atol=0)
