"""Numbers of an architecture that is not in the table: transformers builds it without memory, and it is counted."""

from typing import TYPE_CHECKING, Any

from ftk.memory.architecture import Architecture, Fused, Linear
from ftk.memory.parameters import Inventory

if TYPE_CHECKING:
    from torch import nn


def build(config: Any, *, trust_remote_code: bool = False) -> "nn.Module":
    """The causal language model of a transformers configuration on the meta device, whose tensors have no bytes."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model: nn.Module = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    return model


def inventory_of(model: Any) -> Inventory:
    """Every weight of a transformers model."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()
    linears, seen = [], set[int]()
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | Conv1D) and module is not head:
            rows, columns = module.weight.shape if isinstance(module, nn.Linear) else module.weight.shape[::-1]
            linears.append(Linear(name, columns, rows, module.bias is not None))
            seen |= {id(parameter) for parameter in module.parameters()}
    embeddings = [module.weight for module in model.modules() if isinstance(module, nn.Embedding)]
    head_weight = head.weight if head is not None else None
    fused = []
    norms: list[int] = []
    others: list[int] = []
    for name, parameter in model.named_parameters():
        if id(parameter) in seen or any(parameter is one for one in (*embeddings, head_weight)):
            continue
        if parameter.ndim == 3 and name.split(".")[-2] == "experts":
            fused.append(Fused(name, parameter.shape[0], parameter.shape[2], parameter.shape[1]))
        elif head is None or parameter is not getattr(head, "bias", None):
            (norms if parameter.ndim == 1 else others).append(parameter.numel())
    return Inventory(
        linears=tuple(linears),
        fused=tuple(fused),
        embedding=sum(one.numel() for one in embeddings),
        head=None
        if head is None
        else Linear("lm_head", head.weight.shape[1], head.weight.shape[0], getattr(head, "bias", None) is not None),
        tied=any(head_weight is one for one in embeddings),
        norms=tuple(norms),
        others=tuple(others),
        inactive=_inactive(fused, model.config.get_text_config()),
    )


def architecture_of(config: Any) -> Architecture:
    """What activations depend on, as far as the configuration says it; the rest as in a plain gated decoder."""
    text = config.get_text_config()
    heads = _first(text, "num_attention_heads", "n_head", "num_heads") or 1
    hidden = _first(text, "hidden_size", "n_embd", "d_model") or 1
    experts = _first(text, "num_local_experts", "num_experts", "n_routed_experts") or 0
    inner = _first(text, "intermediate_size", "n_inner", "ffn_dim") or 4 * hidden
    return Architecture(
        model_type=str(text.model_type),
        hidden=hidden,
        num_layers=_first(text, "num_hidden_layers", "n_layer", "num_layers") or 1,
        num_heads=heads,
        num_kv_heads=_first(text, "num_key_value_heads") or heads,
        head_dim=_first(text, "head_dim") or hidden // heads,
        intermediate=inner,
        vocabulary=text.vocab_size,
        positions=_first(text, "max_position_embeddings"),
        tied=bool(text.tie_word_embeddings),
        num_experts=experts,
        experts_per_token=_first(text, "num_experts_per_tok", "num_experts_per_token") or 0,
        expert_intermediate=_first(text, "moe_intermediate_size") or inner,
        logit_soft_cap=getattr(text, "final_logit_softcapping", None),
        attention_soft_cap=getattr(text, "attn_logit_softcapping", None),
    )


def _first(config: Any, *names: str) -> Any:
    return next((getattr(config, name) for name in names if getattr(config, name, None) is not None), None)


def _inactive(fused: list[Fused], text: Any) -> int:
    chosen = _first(text, "num_experts_per_tok", "num_experts_per_token", "top_k")
    if not isinstance(chosen, int):
        return 0
    return sum(max(0, one.num_experts - chosen) * one.in_features * one.out_features for one in fused)
