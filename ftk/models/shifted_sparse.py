"""Shifted sparse attention in a transformers model: while it trains, and full attention otherwise.

Shapes: B rows, H heads, K heads of keys and values, L positions, D head width.
"""

import sys
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ftk.core.errors import ModelError
from ftk.models.proof import narrowest_window
from ftk.models.scoring import base_model
from ftk.numerics.shifted_attention import shifted_sparse_attention


def enable_shifted_sparse_attention(causal_lm: nn.Module, *, group: int) -> None:
    """Have a model attend within shifted groups of so many tokens while it trains.

    Raises:
        ModelError: its attention cannot be replaced, is of a kind of its own, or its heads cannot be halved.
    """
    from transformers import AttentionInterface, AttentionMaskInterface

    model: Any = base_model(causal_lm)
    text = model.config.get_text_config(decoder=True)
    name = type(model).__name__
    if narrowest_window(text) < sys.maxsize:
        raise _refused(name, "some of its layers look back over a window of their own")
    if getattr(text, "attn_logit_softcapping", None):
        raise _refused(name, "it caps its attention's logits")
    if text.num_attention_heads % 2:
        raise _refused(name, f"its {text.num_attention_heads} heads cannot be halved")
    implementation = f"ftk_shifted_sparse_{group}"
    AttentionInterface.register(implementation, partial(_attention, group=group))
    AttentionMaskInterface.register(implementation, _mask)
    model.set_attn_implementation(implementation)
    if text._attn_implementation != implementation or not _is_called(model):
        raise _refused(name, "its attention is computed by code of its own")


def _attention(
    module: nn.Module,
    query_BHLD: Tensor,
    key_BKLD: Tensor,
    value_BKLD: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    *,
    group: int,
    **named: Any,
) -> tuple[Tensor, None]:
    """The attention that transformers calls, [B, L, H, D]."""
    from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward

    position_ids_BL = _positions(query_BHLD, named.get("position_ids"))
    if not module.training:
        if attention_mask is None and key_BKLD.shape[2] == query_BHLD.shape[2]:
            attention_mask = _same_text(position_ids_BL)
        full: tuple[Tensor, None] = sdpa_attention_forward(
            module, query_BHLD, key_BKLD, value_BKLD, attention_mask, dropout=dropout, scaling=scaling, **named
        )
        return full
    # A mask has no more to say: rows are padded at the right, where no token of a causal model looks.
    repeats = query_BHLD.shape[1] // key_BKLD.shape[1]
    seen_BHLD = shifted_sparse_attention(
        query_BHLD,
        repeat_kv(key_BKLD, repeats),
        repeat_kv(value_BKLD, repeats),
        position_ids_BL=position_ids_BL,
        group=group,
        scale=scaling,
        dropout=dropout,
    )
    return seen_BHLD.transpose(1, 2), None


def _mask(*, q_length: int, kv_length: int, attention_mask: Tensor | None = None, **named: Any) -> Tensor | None:
    """None where positions tell all there is to tell: a mask of whole rows would grow with their square."""
    from transformers.masking_utils import sdpa_mask

    if attention_mask is None and q_length == kv_length:
        return None
    mask: Tensor | None = sdpa_mask(q_length=q_length, kv_length=kv_length, attention_mask=attention_mask, **named)
    return mask


def _positions(query_BHLD: Tensor, position_ids: Tensor | None) -> Tensor:
    rows, length = query_BHLD.shape[0], query_BHLD.shape[2]
    if position_ids is None:
        return torch.arange(length, device=query_BHLD.device).expand(rows, -1)
    return position_ids.expand(rows, -1)


def _same_text(position_ids_BL: Tensor) -> Tensor | None:
    """bool [B, 1, L, L]: which token sees which; None where every row is one text."""
    begins_BL = position_ids_BL[:, 1:] != position_ids_BL[:, :-1] + 1
    if not begins_BL.any():
        return None
    texts_BL = nn.functional.pad(begins_BL.cumsum(1), (1, 0))
    length = texts_BL.shape[1]
    causal_LL = torch.ones((length, length), dtype=torch.bool, device=texts_BL.device).tril()
    return ((texts_BL[:, :, None] == texts_BL[:, None]) & causal_LL)[:, None]


def _is_called(model: Any) -> bool:
    """Whether every layer asks for the attention that was registered."""
    from transformers import AttentionInterface

    text = model.config.get_text_config(decoder=True)
    calls: list[int] = []
    name = text._attn_implementation
    registered = AttentionInterface()[name]

    def counted(*arguments: Any, **named: Any) -> Any:
        calls.append(1)
        return registered(*arguments, **named)

    AttentionInterface.register(name, counted)
    try:
        with torch.no_grad():
            model(input_ids=torch.tensor([[1, 2]], device=model.get_input_embeddings().weight.device), use_cache=False)
    finally:
        AttentionInterface.register(name, registered)
    return len(calls) == int(text.num_hidden_layers)


def _refused(name: str, reason: str) -> ModelError:
    return ModelError(
        f"{name} cannot be trained with shifted sparse attention: {reason}. Leave "
        "model.context.shifted_sparse_attention out",
        place="model.context.shifted_sparse_attention",
    )
