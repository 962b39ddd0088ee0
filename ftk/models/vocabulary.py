"""Rows for tokens that a tokenizer has got and its model does not know yet.

Shapes: N tokens, D width.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def grow_vocabulary(model: Any, num_tokens: int, *, new_token_ids: Sequence[int] | None = None) -> None:
    """Give a causal language model rows for `num_tokens` tokens; those of new tokens become the mean of all others.

    From the mean a new token has about the average logit, so that it neither takes probability from the known ones nor
    has to be found; rows drawn at random may do either. Source: Hewitt 2021, 'Initializing New Word Embeddings for
    Pretrained Language Models'.

    Args:
        model: a transformers model without adapters, its weights on their device.
        num_tokens: of the tokenizer; a model that has as many rows, as where they are padded, keeps them.
        new_token_ids: the new ones; by default those that get a row now.
    """
    before = int(model.get_input_embeddings().weight.shape[0])
    if num_tokens > before:
        # Without transformers' own start of new rows, which draws from a normal distribution.
        model.resize_token_embeddings(num_tokens, mean_resizing=False)
    new = list(range(before, num_tokens)) if new_token_ids is None else list(new_token_ids)
    if not new:
        return
    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    _set_to_mean(embeddings.weight, new, num_tokens=num_tokens)
    if head is not None:
        if head.weight is not embeddings.weight:
            _set_to_mean(head.weight, new, num_tokens=num_tokens)
        if getattr(head, "bias", None) is not None:
            _set_to_mean(head.bias, new, num_tokens=num_tokens)


def _set_to_mean(rows_ND: Tensor, new: Sequence[int], *, num_tokens: int) -> None:
    known_N = torch.ones(num_tokens, dtype=torch.bool, device=rows_ND.device)
    known_N[list(new)] = False
    with torch.no_grad():
        rows_ND[list(new)] = rows_ND[:num_tokens][known_N].mean(dim=0, dtype=torch.float64).to(rows_ND.dtype)
