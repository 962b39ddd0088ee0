"""Infilling with new tokens beside an adapter, stopped and resumed: bitwise the run that was not interrupted."""

from pathlib import Path

import pytest
import torch
from infill_tokenizers import of_bytes
from interrupted import sigterm_at_call
from run_ftk import Ftk
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM

from ftk.train.step import Step


def test_new_tokens_resume_bitwise(tmp_path: Path, ftk_json: Ftk, monkeypatch: pytest.MonkeyPatch) -> None:
    # Under a tokenizer of bytes the whole text is long.
    monkeypatch.setattr("ftk.evaluation.retention.general_text", lambda: "A few words, in general. ")
    tokenizer = of_bytes(bos="<s>")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = LlamaConfig(**sizes, vocab_size=len(tokenizer), max_position_embeddings=64, tie_word_embeddings=True)
    LlamaForCausalLM(config).save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    (tmp_path / "code.py").write_text("".join(f"x = {n}\ny = x + {n}\n" for n in range(60)))
    recipe = tmp_path / "infill.yaml"
    recipe.write_text(
        f"""\
model: {tmp_path / "base"}
task: {{name: infill, cut: token}}
data: {{train: {tmp_path / "code.py"}, max_length: 32}}
tuning: {{name: lora, rank: 2, dropout: 0.1}}
training: {{max_steps: 5, batch_size: 4, micro_batch_size: 2, learning_rate: 1.0e-2, precision: fp32}}
checkpoint: {{every: 1, keep: 2}}
"""
    )
    with sigterm_at_call(2, Step, "__call__"):
        answer = ftk_json("train", recipe, "--output", tmp_path / "stopped")
    assert answer["exit_code"] == 75, answer
    resumed = ftk_json("train", recipe, "--output", tmp_path / "stopped")
    assert "going on from step" in resumed["stderr"]
    whole = ftk_json("train", recipe, "--output", tmp_path / "whole")
    found, expected = (load_file(Path(one["model_folder"]) / "adapter_model.safetensors") for one in (resumed, whole))
    assert any("trainable_tokens" in name for name in expected)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
