"""Activation checkpointing: recompute what a layer held in memory instead of keeping it for the backward pass."""

from typing import Any

from torch import nn

from ftk.core.errors import ModelError
from ftk.models.scoring import base_model


def enable_activation_checkpointing(causal_lm: nn.Module) -> None:
    """Each layer keeps its input alone while training. Gradients are those without it, under adapters too.

    The non-reentrant kind of checkpoint needs no input that requires gradients: with the reentrant one, adapters on
    frozen weights would get none, without an error.

    Raises:
        ModelError: the architecture cannot do it.
    """
    model = base_model(causal_lm)
    if not model.supports_gradient_checkpointing:
        raise ModelError(
            f"{type(model).__name__} has no activation checkpointing. Set training.activation_checkpointing to false, "
            "and lower training.micro_batch_size or data.max_length instead"
        )
    settings = {"use_reentrant": False}
    # transformers 5.18 renamed it, and warns at the old name.
    enable: Any = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable(settings)
