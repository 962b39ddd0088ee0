"""Small models of several families, saved with an adapter beside them, and what they say."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peft import (
    PeftModel,
    get_peft_model,
)
from transformers import (
    AutoModelForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

VOCABULARY = 64
TOKENS = torch.arange(3, 35)[None]
Build = Callable[[], torch.nn.Module]


def llama(**changes: Any) -> torch.nn.Module:
    options = {"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 64, **changes}
    return LlamaForCausalLM(
        LlamaConfig(hidden_size=32, intermediate_size=48, num_hidden_layers=2, vocab_size=VOCABULARY, **options)
    )


def qwen() -> torch.nn.Module:
    """Biases on the attention's projections."""
    config = Qwen2Config(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        vocab_size=VOCABULARY,
        max_position_embeddings=64,
    )
    return Qwen2ForCausalLM(config)


def gpt2() -> torch.nn.Module:
    """Weights stored as [inputs, outputs], one of them square."""
    return GPT2LMHeadModel(
        GPT2Config(
            n_embd=32, n_layer=2, n_head=2, n_positions=64, vocab_size=VOCABULARY, bos_token_id=1, eos_token_id=2
        )
    )


def tied() -> torch.nn.Module:
    return llama(tie_word_embeddings=True)


def gemma() -> torch.nn.Module:
    """A tied head, and an embedding that is scaled as it is looked up."""
    config = Gemma3TextConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        vocab_size=VOCABULARY,
        max_position_embeddings=64,
    )
    return Gemma3ForCausalLM(config)


def mixtral() -> torch.nn.Module:
    """Experts that lie on disk one by one, and are fused in memory."""
    config = MixtralConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        vocab_size=VOCABULARY,
        num_local_experts=4,
        max_position_embeddings=64,
    )
    return MixtralForCausalLM(config)


def shaken(model: torch.nn.Module) -> None:
    """Adapters as training leaves them: none of their numbers is what it started as."""
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            like = 0.2 * torch.randn_like(parameter)
            # In place: some share their memory with a tied module's.
            parameter.data.add_(like * parameter.data if "lora_magnitude" in name else like)


def saved(build: Build, config: Any, folder: Path, *, dtype: torch.dtype = torch.float32) -> tuple[Path, Path]:
    """A base and an adapter for it, both on disk."""
    torch.manual_seed(0)
    base = build()
    with torch.no_grad():
        for parameter in base.parameters():
            # Biases and norms other than zeros and ones.
            parameter.add_(0.1 * torch.randn_like(parameter) if parameter.ndim == 1 else 0)
    base.to(dtype).save_pretrained(folder / "base")
    base = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=dtype)
    adapted = get_peft_model(base, config() if callable(config) else config)
    shaken(adapted)
    adapted.save_pretrained(folder / "adapter", save_embedding_layers=False)
    return folder / "base", folder / "adapter"


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=TOKENS).logits.float()


def beside(base: Path, adapter: Path, dtype: torch.dtype = torch.float32) -> torch.nn.Module:
    return PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, dtype=dtype), adapter)


def merged(out: Path, dtype: torch.dtype = torch.float32) -> torch.nn.Module:
    return AutoModelForCausalLM.from_pretrained(out, dtype=dtype)
