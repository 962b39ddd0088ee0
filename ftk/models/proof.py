"""What a model does between its backbone and its logits, proven on the model itself instead of looked up by name.

A short row runs through the model's own forward while the head's output is replaced by known numbers. Where the head's
input is the backbone's output, and the logits are the known numbers under a formula that the config names, calling the
backbone, the head and the formula in turn is what the model does. Anything else is left to the model's own forward.

Shapes: R rows, M positions, D width, V vocabulary.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ftk.numerics.head import LogitTransform

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LARGEST_LOGIT = 60.0
"""Known logits range to both sides of 0 up to this, where a soft cap of 30 or 50 bends them visibly."""

WINDOWS = (
    "sliding_window",
    "sliding_window_size",
    "attention_window",
    "attention_window_size",
    "attention_chunk_size",
    "local_attention",
    "window_size",
    "chunk_size",
)
"""Where configurations of text models say how far back some of their layers look."""

UNPROVEN = (TypeError, ValueError, AttributeError, KeyError, IndexError, RuntimeError)
"""What a forward raises that does not take these inputs."""


@dataclass(frozen=True)
class HeadPath:
    """The way from tokens to logits, by names of modules, which stay when modules are sharded or compiled."""

    backbone: str
    head: str
    transform: LogitTransform
    vocabulary_size: int


def prove_head(causal_lm: nn.Module, base: "PreTrainedModel") -> tuple[HeadPath | None, str | None]:
    """The proven path, or None and the reason why there is none.

    Args:
        causal_lm: the model in which names are given, adapters included.
        base: the transformers model inside it, or itself.
    """
    names = {module: name for name, module in causal_lm.named_modules()}
    head = base.get_output_embeddings()
    if head is None:
        return None, "it has no output head that transformers knows of"
    reason = "its head reads something else than the last hidden state"
    for backbone in _backbones(base):
        try:
            run = _own_forward(base, backbone, head)
        except torch.OutOfMemoryError:
            raise
        except UNPROVEN as error:
            reason = f"a trial forward pass failed: {type(error).__name__}: {error}"
            continue
        if run is None:
            continue
        known, logits = run
        for transform in _transforms(base.config):
            if logits.shape == known.shape and torch.allclose(logits, transform(known), rtol=1e-5, atol=1e-5):
                return HeadPath(names[backbone], names[head], transform, known.shape[-1]), None
        reason = "it changes logits after its head in a way that ftk does not know"
    return None, reason


def prove_packing(base: "PreTrainedModel", backbone: nn.Module) -> bool:
    """Whether documents in one row, told apart by positions that start anew, see nothing of each other.

    The gradient of the second document's hidden states to the first one's embeddings is exactly zero, and they are
    what the document gives alone.
    """
    device = base.get_input_embeddings().weight.device
    positions = torch.tensor([[0, 1, 2, 0, 1, 2]], device=device)
    return _sees_its_own_alone(base, backbone, [1, 2, 3, 4, 5, 6], own=[3, 4, 5], position_ids=positions)


def prove_trees(base: "PreTrainedModel", backbone: nn.Module) -> bool:
    """Whether completions that share a prompt in one row, under a mask of ours, see nothing of each other.

    Two prompts of two tokens with two completions of two tokens each: as `prove_packing`, for each text of a prompt and
    one completion.
    """
    if attention_of(base) not in ("sdpa", "eager"):
        return False
    device = base.get_input_embeddings().weight.device
    texts = [[0, 1, 2, 3], [0, 1, 4, 5], [6, 7, 8, 9], [6, 7, 10, 11]]
    sees_MM = torch.eye(12, dtype=torch.bool, device=device)
    for text in texts:
        for place, query in enumerate(text):
            sees_MM[query, text[: place + 1]] = True
    named = {
        "position_ids": torch.tensor([[0, 1, 2, 3, 2, 3] * 2], device=device),
        "attention_mask": attention_mask(sees_MM[None, None], base),
    }
    tokens = [1, 2, 3, 4, 5, 6, 7, 8, 9, 3, 2, 1]
    return all(_sees_its_own_alone(base, backbone, tokens, own=text, **named) for text in texts)


def attention_of(base: "PreTrainedModel") -> str:
    """The kind of attention, as transformers names it."""
    return str(base.config.get_text_config()._attn_implementation)


def attention_mask(sees_R1MM: Tensor, base: "PreTrainedModel") -> Tensor:
    """Which place sees which, as the model's attention reads it: sdpa takes it as it is, eager attention adds it."""
    if attention_of(base) != "eager":
        return sees_R1MM
    dtype = base.get_input_embeddings().weight.dtype
    hidden = torch.full((), torch.finfo(dtype).min, dtype=dtype, device=sees_R1MM.device)
    return torch.where(sees_R1MM, torch.zeros_like(hidden), hidden)


def narrowest_window(text_config: Any) -> int:
    """Tokens that every layer looks back over, the token itself included.

    `sys.maxsize` where there is no limit, 0 where some layers are of another kind and it is not known which.
    """
    kinds = set(getattr(text_config, "layer_types", None) or ())
    if kinds == {"full_attention"}:
        return sys.maxsize
    named = (getattr(text_config, name, None) for name in WINDOWS)
    return min((value for value in named if type(value) is int and value > 0), default=0 if kinds else sys.maxsize)


def _sees_its_own_alone(
    base: "PreTrainedModel", backbone: nn.Module, tokens: list[int], *, own: list[int], **named: Tensor
) -> bool:
    """Whether the tokens at places `own` of a row give what they give alone, and nothing reaches them from others."""
    embeddings = base.get_input_embeddings()
    leaves: list[Tensor] = []

    def on_embeddings(module: nn.Module, arguments: Any, output: Tensor) -> Tensor:
        leaves.append(output.detach().requires_grad_())
        return leaves[-1]

    def hidden(tokens: list[int], **named: Tensor) -> Tensor:
        row = torch.tensor([tokens], device=embeddings.weight.device)
        output = backbone(input_ids=row, use_cache=False, **named)
        states: Tensor = output.last_hidden_state[0].float()
        return states

    hook = embeddings.register_forward_hook(on_embeddings)
    try:
        with _as_evaluated(base), torch.enable_grad():
            among = hidden(tokens, **named)[own]
            # Unequal weights: a plain sum over a normalised vector is constant, and has no gradient at all.
            weighted = among * torch.linspace(-1, 1, among.shape[-1], device=among.device)
            (gradient,) = torch.autograd.grad(weighted.sum(), leaves[0])
            alone = hidden([tokens[place] for place in own]).detach()
    except torch.OutOfMemoryError:
        raise
    except UNPROVEN:
        return False
    finally:
        hook.remove()
    # Half precision rounds other shapes otherwise; a document at wrong positions differs by far more.
    is_exact = next(backbone.parameters()).dtype in (torch.float32, torch.float64)
    tolerance = 1e-4 if is_exact and not torch.is_autocast_enabled(among.device.type) else 0.1
    others = [place for place in range(len(tokens)) if place not in own]
    is_apart = not gradient[0, others].any() and bool(gradient[0, own].any())
    return is_apart and bool((among.detach() - alone).norm() <= tolerance * alone.norm())


def _backbones(base: "PreTrainedModel") -> list[nn.Module]:
    """The text decoder, and what transformers calls the base model, which may be around it."""
    found: list[nn.Module] = []
    for module in (base.get_decoder(), base.base_model):
        if isinstance(module, nn.Module) and module is not base and module not in found:
            found.append(module)
    return found


def _transforms(config: Any) -> Iterator[LogitTransform]:
    """What configs name as done to logits; the proof picks the one that the forward does."""
    text = config.get_text_config()
    yield LogitTransform()
    for name in ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap"):
        if getattr(text, name, None):
            yield LogitTransform(soft_cap=float(getattr(text, name)))
    for name in ("logit_scale", "lm_head_multiplier"):
        if getattr(text, name, None):
            yield LogitTransform(scale=float(getattr(text, name)))
    if getattr(text, "logits_scaling", None):
        yield LogitTransform(scale=1.0 / float(text.logits_scaling))


def _own_forward(base: "PreTrainedModel", backbone: nn.Module, head: nn.Module) -> tuple[Tensor, Tensor] | None:
    """Known logits put in for the head's, and what the forward made of them; None if the head's input is no match."""
    seen: dict[str, list[Tensor]] = {"hidden": [], "head input": [], "known": []}

    def on_backbone(module: nn.Module, arguments: Any, output: Any) -> None:
        seen["hidden"].append(output.last_hidden_state)

    def on_head(module: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> Tensor:
        seen["head input"].append(arguments[0])
        known = torch.linspace(-LARGEST_LOGIT, LARGEST_LOGIT, output.numel(), device=output.device)
        seen["known"].append(known.view(output.shape))
        return seen["known"][-1]

    hooks = [backbone.register_forward_hook(on_backbone), head.register_forward_hook(on_head)]
    try:
        with _as_evaluated(base):
            row = torch.tensor([[1, 2, 3]], device=base.get_input_embeddings().weight.device)
            logits = base(input_ids=row, use_cache=False).logits
    finally:
        for hook in hooks:
            hook.remove()
    if len(seen["hidden"]) != 1 or len(seen["head input"]) != 1:
        return None
    hidden, head_input = seen["hidden"][0], seen["head input"][0]
    if hidden.dtype != head_input.dtype or not torch.equal(hidden, head_input):
        return None
    # A copy, as the forward may have changed the known numbers in place.
    known = torch.linspace(-LARGEST_LOGIT, LARGEST_LOGIT, logits.numel(), device=logits.device)
    return known.view(seen["known"][0].shape), logits.float()


@contextmanager
def _as_evaluated(model: nn.Module) -> Iterator[None]:
    """No dropout and no gradients within; every module's own mode afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training
