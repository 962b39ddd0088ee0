"""Learned positions: the table stretched by interpolation, GPT-2's and OPT's; what has none is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    BloomForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTJConfig,
    GPTJForCausalLM,
    OPTConfig,
    OPTForCausalLM,
)

from ftk.core.errors import ModelError
from ftk.core.positions import max_positions
from ftk.models.load import load_config, load_model
from ftk.models.position_table import stretched
from ftk.models.settings import ModelSettings


def test_table_by_hand() -> None:
    table_PD = torch.tensor([[0.0, 1.0], [2.0, -1.0], [4.0, 1.0]])
    expected = torch.tensor([[0.0, 1.0], [1.0, 0.0], [2.0, -1.0], [3.0, 0.0], [4.0, 1.0]])
    torch.testing.assert_close(stretched(table_PD, 5), expected)
    torch.testing.assert_close(stretched(table_PD, 3), table_PD)


def small(kind: str) -> Any:
    torch.manual_seed(0)
    if kind == "gpt2":
        return GPT2LMHeadModel(GPT2Config(n_embd=16, n_head=2, n_layer=1, vocab_size=32, n_positions=16))
    if kind == "opt":
        return OPTForCausalLM(
            OPTConfig(
                hidden_size=16, ffn_dim=16, num_attention_heads=2, num_hidden_layers=1, vocab_size=32,
                max_position_embeddings=16, word_embed_proj_dim=16,
            )
        )  # fmt: skip
    if kind == "gptj":
        return GPTJForCausalLM(GPTJConfig(n_embd=16, n_head=2, n_layer=1, vocab_size=32, n_positions=16, rotary_dim=4))
    return BloomForCausalLM(BloomConfig(hidden_size=16, n_head=2, n_layer=1, vocab_size=32))


@pytest.mark.parametrize(("kind", "path"), [("gpt2", "transformer.wpe"), ("opt", "model.decoder.embed_positions")])
def test_model_reads_further_and_is_saved_so(kind: str, path: str, tmp_path: Path) -> None:
    own = small(kind)
    own.save_pretrained(tmp_path / "own")
    settings = ModelSettings(id=str(tmp_path / "own"), context={"length": 40})
    assert max_positions(load_config(settings)) == 40
    model = load_model(settings, dtype=torch.float32).eval()
    before, after = own.get_submodule(path).weight, model.get_submodule(path).weight
    extra = len(before) - 16
    assert len(after) == 40 + extra
    assert torch.equal(after[:extra], before[:extra])
    torch.testing.assert_close(after[[extra, -1]], before[[extra, -1]])
    row = torch.arange(40)[None] % 32
    logits = model(input_ids=row).logits
    model.save_pretrained(tmp_path / "further")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "further").eval()
    assert max_positions(again.config) == 40
    assert torch.equal(again(input_ids=row).logits, logits)


@pytest.mark.parametrize(
    ("kind", "context", "message"),
    [
        ("bloom", {"length": 64}, "sets no bound to positions, as models with ALiBi do"),
        ("gptj", {"length": 64}, "neither rotary positions nor a table of 16 learned ones"),
        ("gpt2", {"length": 64, "scaling": "yarn"}, "has no rotary positions that could be scaled"),
    ],
)
def test_what_cannot_be_extended_is_refused(kind: str, context: dict[str, Any], message: str, tmp_path: Path) -> None:
    small(kind).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=message):
        load_model(ModelSettings(id=str(tmp_path), context=context), dtype=torch.float32)
