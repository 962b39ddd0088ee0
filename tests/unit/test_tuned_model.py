"""The model of a run: proven in the precision in which it will compute, and what is slow about it is said."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import MambaConfig, MambaForCausalLM
from transformers.modeling_utils import AttentionInterface

from ftk.recipe.load import load_recipe
from ftk.runs.tuned_model import TunedModel, load_start, tune

BF16 = SimpleNamespace(device=torch.device("cpu"), autocast=lambda: torch.autocast("cpu", dtype=torch.bfloat16))
EXACT = SimpleNamespace(device=torch.device("cpu"), autocast=lambda: torch.autocast("cpu", enabled=False))


def build(recipe_file: Path, accelerator: Any, *words: str) -> TunedModel:
    recipe = load_recipe(str(recipe_file), words).recipe
    return tune(load_start(recipe, accelerator), recipe, accelerator)


def test_the_proof_computes_as_training_will(recipe_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Flash attention takes float32 weights under autocast alone; unproven, every logit would be kept in memory."""
    own = AttentionInterface._global_mapping["sdpa"]

    def flash(module: Any, query: torch.Tensor, *arguments: Any, **rest: Any) -> Any:
        if query.dtype == torch.float32 and not torch.is_autocast_enabled(query.device.type):
            raise RuntimeError("FlashAttention only support fp16 and bf16 data type")
        return own(module, query, *arguments, **rest)

    monkeypatch.setitem(AttentionInterface._global_mapping, "sdpa", flash)
    tuned = build(recipe_file, BF16, "training.precision=bf16")
    assert next(tuned.causal_lm.parameters()).dtype == torch.float32
    assert (tuned.scoring.head_note, tuned.scoring.packing_note) == (None, None)


def test_what_takes_more_memory_is_said(recipe_file: Path, tmp_path: Path, model_folder: Path) -> None:
    plain = build(recipe_file, EXACT)
    assert len(plain.lines(packs=True)) == 1
    torch.manual_seed(0)
    MambaForCausalLM(MambaConfig(hidden_size=16, num_hidden_layers=1, state_size=4, vocab_size=8192)).save_pretrained(
        tmp_path / "mamba"
    )
    slow = build(recipe_file, EXACT, f"model.id={tmp_path / 'mamba'}")
    assert "does not keep documents in one row apart" in slow.lines(packs=True)[1]
    assert len(slow.lines(packs=False)) == 1
    slow.scoring.head_note = "computes full logits"
    assert slow.lines(packs=False)[1] == "model  computes full logits"
