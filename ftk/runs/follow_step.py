"""What is made in which part of a training step, told to whoever follows its allocations."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from ftk.core.types import Batch
from ftk.memory.follow import Follow
from ftk.memory.quantized import quantized_constants
from ftk.memory.repeat import moment_of
from ftk.runs.alone import Alone
from ftk.runs.tuned_model import TunedModel
from ftk.train.shard import decoder_layers


def take_weights(follow: Follow, model: nn.Module, base: set[nn.Parameter], batches: Sequence[Batch]) -> None:
    for parameter in model.parameters():
        follow.take([parameter], "weights" if parameter in base else "adapter")
    follow.take([*model.buffers(), *quantized_constants(model)], "weights")
    for batch in batches:
        follow.take([getattr(batch, name) for name in Batch.__slots__], "activations")


@contextmanager
def watched(follow: Follow, tuned: TunedModel, optimizer: torch.optim.Optimizer, alone: Alone) -> Iterator[None]:
    """Tell what is made while which part of the step runs."""

    def now(kind: str, moment: str) -> None:
        follow.kind, follow.moment = kind, moment

    def phase() -> str:
        # Within a backward pass layers run forward again where activations are checkpointed.
        return "backward pass" if torch._C._current_graph_task_id() != -1 else "forward pass"

    def watch_layer(layer: nn.Module, moment: str) -> Iterator[Any]:
        def on_output(module: nn.Module, arguments: Any, output: Any) -> None:
            hidden = output[0] if isinstance(output, tuple) else output
            if phase() == "forward pass" and hidden.requires_grad:
                hidden.register_hook(lambda gradient: now("activations", f"backward pass, {moment}"))

        yield layer.register_forward_pre_hook(lambda *_: now("activations", f"{phase()}, {moment}"))
        yield layer.register_forward_hook(on_output)

    def on_backbone_output(module: nn.Module, arguments: Any, output: Any) -> None:
        now("logits", "output head")
        hidden = output.last_hidden_state
        if hidden.requires_grad:
            hidden.register_hook(lambda gradient: now("activations", "backward pass"))

    scoring = tuned.scoring
    backbone = scoring.backbone
    alone.before_backward = lambda: now("logits", "backward pass")
    hooks: list[Any] = [
        scoring.register_forward_pre_hook(lambda module, arguments: now("activations", "forward pass")),
        optimizer.register_step_pre_hook(lambda *_: now("optimizer", "optimizer's update")),
        optimizer.register_step_post_hook(lambda *_: now("other", "")),
    ]
    layers = decoder_layers(scoring)
    for number, layer in enumerate(layers):
        hooks += watch_layer(layer, moment_of(number, len(layers)))
    if backbone is not None:
        hooks.append(backbone.register_forward_hook(on_backbone_output))
    for parameter in tuned.scoring.parameters():
        if parameter.requires_grad:
            hooks.append(
                parameter.register_post_accumulate_grad_hook(  # type: ignore[no-untyped-call]
                    lambda parameter: follow.take([parameter.grad], "gradients")
                )
            )
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def make_states(optimizer: torch.optim.Optimizer, follow: Follow) -> None:
    """An update with imagined gradients, by which the optimizer makes its states."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.empty_like(parameter)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    follow.take(tree_leaves([list(state.values()) for state in optimizer.state.values()]), "optimizer")
