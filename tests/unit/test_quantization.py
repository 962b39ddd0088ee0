"""Weights beneath an adapter are really stored in four or eight bits, and still say what they said."""

from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from ftk.quantization import Quantization
from ftk.quantization.int8 import Int8
from ftk.quantization.nf4 import Nf4
from ftk.tuning.lora import Lora

pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:MatMul8bitLt:UserWarning"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        vocab_size=64,
        tie_word_embeddings=False,
    )
    path = tmp_path_factory.mktemp("model")
    LlamaForCausalLM(config).save_pretrained(path)
    return path


def load(folder: Path, quantization: Nf4 | Int8 | None) -> LlamaForCausalLM:
    config = quantization.loading_config(torch.float32) if quantization else None
    return LlamaForCausalLM.from_pretrained(folder, quantization_config=config, dtype=torch.float32)


def nf4_reference(weight: torch.Tensor) -> torch.Tensor:
    """Each block of 64 scaled by its largest magnitude and rounded to the sixteen levels of Dettmers et al. 2023,
    appendix E, without the second quantization."""
    positive = [0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224]
    positive += [0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0]
    negative = [-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635]
    negative += [-0.18477343022823334, -0.09105003625154495]
    levels = torch.tensor([*negative, 0.0, *positive])
    blocks = weight.reshape(-1, 64)
    scale = blocks.abs().amax(dim=1, keepdim=True)
    nearest = (blocks / scale).unsqueeze(-1).sub(levels).abs().argmin(dim=-1)
    return (levels[nearest] * scale).reshape(weight.shape)


def test_nf4_stores_half_a_byte_a_weight_at_the_papers_levels(folder: Path) -> None:
    plain = load(folder, None).model.layers[0].mlp.up_proj.weight
    module = load(folder, Nf4(double=False)).model.layers[0].mlp.up_proj
    assert module.weight.numel() * module.weight.element_size() == plain.numel() // 2
    torch.testing.assert_close(module(torch.eye(64)).T, nf4_reference(plain), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("quantization", [Nf4(), Int8(threshold=0.0)])
def test_adapters_learn_above_frozen_quantized_weights(folder: Path, quantization: Nf4 | Int8) -> None:
    tokens = torch.arange(16)[None]
    model = Lora(rank=2).apply(load(folder, quantization))
    loss = model(input_ids=tokens, labels=tokens).loss
    loss.backward()
    gradients = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert gradients
    assert all(".lora_" in name for name in gradients)
    plain = load(folder, None)(input_ids=tokens, labels=tokens).loss
    assert abs(loss.item() - plain.item()) < 0.05
    assert loss.item() != plain.item()


def test_the_head_is_not_quantized(folder: Path) -> None:
    assert type(load(folder, Nf4()).lm_head) is torch.nn.Linear


def test_one_word_is_enough() -> None:
    from pydantic import TypeAdapter

    assert TypeAdapter(Quantization).validate_python("nf4") == Nf4()
