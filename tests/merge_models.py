"""Models of a few hundred weights for tests of merging, written as transformers writes them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

WIDTH, VOCABULARY = 8, 12


def weights(
    seed: int, *, num_layers: int = 3, vocabulary: int = VOCABULARY, tied: bool = False
) -> dict[str, torch.Tensor]:
    """A Llama's tensors; models of all seeds are kin, as finetunes of one base are."""
    base, own = torch.Generator().manual_seed(0), torch.Generator().manual_seed(seed)

    def tensor(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=base) + 0.1 * torch.randn(shape, generator=own)

    found = {"model.embed_tokens.weight": tensor(vocabulary, WIDTH)}
    for layer in range(num_layers):
        for name in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"):
            found[f"model.layers.{layer}.{name}.weight"] = tensor(WIDTH, WIDTH)
        found[f"model.layers.{layer}.mlp.gate_proj.weight"] = tensor(2 * WIDTH, WIDTH)
        found[f"model.layers.{layer}.mlp.up_proj.weight"] = tensor(2 * WIDTH, WIDTH)
        found[f"model.layers.{layer}.mlp.down_proj.weight"] = tensor(WIDTH, 2 * WIDTH)
        found[f"model.layers.{layer}.input_layernorm.weight"] = tensor(WIDTH)
        found[f"model.layers.{layer}.post_attention_layernorm.weight"] = tensor(WIDTH)
    found["model.norm.weight"] = tensor(WIDTH)
    if not tied:
        found["lm_head.weight"] = tensor(vocabulary, WIDTH)
    return found


def config(*, num_layers: int = 3, vocabulary: int = VOCABULARY, tied: bool = False) -> dict[str, Any]:
    """Its config.json."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "num_hidden_layers": num_layers,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "vocab_size": vocabulary,
        "tie_word_embeddings": tied,
        "dtype": "float32",
    }


def write_model(
    folder: Path, seed: int, *, dtype: torch.dtype = torch.float32, **shape: Any
) -> dict[str, torch.Tensor]:
    """Write a model; its tensors."""
    found = {name: tensor.to(dtype) for name, tensor in weights(seed, **shape).items()}
    write_tensors(folder, found, {**config(**shape), "dtype": str(dtype).removeprefix("torch.")})
    return found


def write_tensors(folder: Path, tensors: Mapping[str, torch.Tensor], settings: Mapping[str, Any]) -> None:
    """Write tensors and config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(dict(tensors), folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(settings))


def write_tokenizer(folder: Path, tokens: list[str], *, added: tuple[str, ...] = ()) -> None:
    """Write a tokenizer of whole words, numbered in order, the added ones after them."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.WordLevel({token: number for number, token in enumerate(tokens)}, unk_token=tokens[0]))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, unk_token=tokens[0])
    tokenizer.add_tokens(list(added))
    tokenizer.save_pretrained(folder)


def read_model(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a folder."""
    return {name: tensor for file in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(file).items()}


LINEAR = """\
merge_method: linear
models:
  - {model: a, parameters: {weight: 1}}
  - {model: b, parameters: {weight: 3}}
"""
ONE_SLICE = """\
merge_method: passthrough
slices:
  - sources: [{{model: a, layer_range: {first}}}]
  - sources: [{{model: b, layer_range: {second}}}]
"""


def close(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-6, atol=1e-6)
