"""Small models to be wrapped, and batches for them."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from ftk.core.types import Batch

SIZES: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
}
A, B, C = [5, 6, 7, 8], [9, 10, 11, 12, 13], [14, 15, 16]


def llama(**values: Any) -> Any:
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**{**SIZES, **values})).train()


def batch_of(*rows: list[list[int]]) -> Batch:
    length = max(sum(map(len, row)) for row in rows)
    ids, positions, owners, weights = (torch.zeros((len(rows), length)) for _ in range(4))
    for r, row in enumerate(rows):
        start = 0
        for d, document in enumerate(row, start=1):
            here = slice(start, start + len(document))
            ids[r, here] = torch.tensor(document).float()
            positions[r, here] = torch.arange(len(document)).float()
            owners[r, here] = d
            weights[r, start + 1 : here.stop] = 1
            start = here.stop
    return Batch(
        input_ids_BL=ids.long(),
        position_ids_BL=positions.long(),
        document_ids_BL=owners.long(),
        weights_BL=weights,
        answers_BL=weights > 0,
        packed=any(len(row) > 1 for row in rows),
        num_tokens=int((owners > 0).sum()),
        num_examples=sum(map(len, rows)),
        indices=(),
    )


def gradients(model: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
