"""Shrunken configurations of the well-known families, and batches to run them on."""

from typing import Any

import torch

from ftk.core.types import Batch

VOCABULARY = 96
SHARED = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "initializer_range": 0.3,
}
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 24}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"sliding_window": 5},
    "mixtral": {"sliding_window": 5, "num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen2": {"tie_word_embeddings": True},
    "qwen3": {"tie_word_embeddings": True},
    "qwen3_moe": {"num_experts": 4, **EXPERTS},
    "gemma2": {
        "sliding_window": 5,
        "final_logit_softcapping": 3.0,
        "attn_logit_softcapping": 5.0,
        "query_pre_attn_scalar": 8,
    },
    "gemma3_text": {"sliding_window": 5, "final_logit_softcapping": 3.0, "query_pre_attn_scalar": 8},
    "phi3": {"sliding_window": 5},
    "gpt_neox": {},
    "olmo2": {},
    "cohere": {"logit_scale": 0.25},
    "granite": {"logits_scaling": 4.0, "attention_multiplier": 0.3, "residual_multiplier": 0.7},
    "phi": {},
    "gptj": {"rotary_dim": 4},
}
"""By `model_type`. phi and gptj have a bias in their head."""
PLAIN_NAMES = {"gptj": {"hidden_size": "n_embd", "num_hidden_layers": "n_layer", "num_attention_heads": "n_head"}}


def config_of(family: str) -> Any:
    from transformers import AutoConfig

    values = {**SHARED, **FAMILIES[family]}
    for theirs, own in PLAIN_NAMES.get(family, {}).items():
        values[own] = values.pop(theirs)
    if family in ("gpt_neox", "phi", "gptj"):
        for name in ("num_key_value_heads", "head_dim"):
            values.pop(name)
    return AutoConfig.for_model(family, **values)


def model_of(family: str, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Any:
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config_of(family), dtype=dtype)
    head = model.get_output_embeddings()
    if head.bias is not None:
        torch.nn.init.normal_(head.bias)
    return model.train()


def documents(*lengths: int, seed: int = 0) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(3, VOCABULARY, (length,), generator=generator).tolist() for length in lengths]


def batch_of(rows: list[list[list[int]]], *, weight: float = 1.0, skipped: int = 1) -> Batch:
    """A batch of rows of documents, padded at the right; the first `skipped` tokens of each have no weight."""
    length = max(sum(len(document) for document in row) for row in rows)
    ids = torch.zeros((len(rows), length), dtype=torch.long)
    positions, owners = torch.zeros_like(ids), torch.zeros_like(ids)
    weights = torch.zeros(ids.shape)
    for r, row in enumerate(rows):
        start = 0
        for d, document in enumerate(row, start=1):
            end = start + len(document)
            ids[r, start:end] = torch.tensor(document)
            positions[r, start:end] = torch.arange(len(document))
            owners[r, start:end] = d
            weights[r, start + skipped : end] = weight
            start = end
    return Batch(
        input_ids_BL=ids,
        position_ids_BL=positions,
        document_ids_BL=owners,
        weights_BL=weights,
        answers_BL=weights > 0,
        packed=any(len(row) > 1 for row in rows),
        num_tokens=int((owners > 0).sum()),
        num_examples=sum(len(row) for row in rows),
        indices=tuple(range(sum(len(row) for row in rows))),
    )
