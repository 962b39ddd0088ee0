"""Adapters trained above four- and eight-bit weights fold into exactly what bitsandbytes makes of those, or of none."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.utils.integrations import dequantize_module_weight
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from ftk.core.errors import ModelError, RecipeError
from ftk.quantization.int8 import Int8
from ftk.quantization.nf4 import Nf4
from ftk.runs.merging.adapters import merge_adapters

pytestmark = [pytest.mark.filterwarnings("ignore")]
FORMATS = [Nf4(), Nf4(double=False), Int8()]


def make_run(folder: Path, quantization: Nf4 | Int8, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """A base, and a run's folder with an adapter for it as stored in few bits; the exact merged weights."""
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        vocab_size=64,
        max_position_embeddings=64,
        tie_word_embeddings=False,
    )
    LlamaForCausalLM(config).to(dtype).save_pretrained(folder / "base")
    base = AutoModelForCausalLM.from_pretrained(
        folder / "base", dtype=dtype, quantization_config=quantization.loading_config(dtype)
    )
    modules = {name: module for name, module in base.named_modules() if hasattr(module, "weight")}
    exact = {f"{name}.weight": dequantize_module_weight(module).float() for name, module in modules.items()}
    adapted = get_peft_model(base, LoraConfig(r=4, lora_alpha=6, target_modules=["q_proj", "down_proj"]))
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            parameter.data.copy_(0.1 * torch.randn_like(parameter))
    for name, module in adapted.base_model.model.named_modules():
        if hasattr(module, "lora_A"):
            a, b = module.lora_A.default.weight.float(), module.lora_B.default.weight.float()
            exact[f"{name}.weight"] = exact[f"{name}.weight"] + 1.5 * (b @ a)
    (folder / "run").mkdir()
    adapted.save_pretrained(folder / "run" / "model", save_embedding_layers=False)
    recipe = {
        "model": {"dtype": "auto"},
        "quantization": quantization.model_dump(),
        "training": {"precision": {torch.float32: "fp32", torch.bfloat16: "bf16"}[dtype]},
    }
    (folder / "run" / "recipe.json").write_text(json.dumps(recipe))
    return {name.replace(".base_layer", ""): tensor for name, tensor in exact.items()}


def run_merge(folder: Path, **options: Any) -> dict[str, Any]:
    return merge_adapters(None, [str(folder / "run")], out=folder / "out", **{"verify": False, **options})


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("quantization", FORMATS)
def test_dequantized_folds_into_what_bitsandbytes_dequantizes_to(
    quantization: Nf4 | Int8, dtype: torch.dtype, tmp_path: Path
) -> None:
    exact = make_run(tmp_path, quantization, dtype)
    result = run_merge(tmp_path)
    assert result["base_precision"] == "dequantized"
    found = load_file(tmp_path / "out" / "model.safetensors")
    plain = load_file(tmp_path / "base" / "model.safetensors")
    for name, tensor in found.items():
        assert tensor.dtype == dtype
        if ".q_proj." in name or ".down_proj." in name:
            torch.testing.assert_close(
                tensor, exact[name].to(dtype), rtol=1.3e-6 if dtype == torch.float32 else 8e-3, atol=1e-6
            )
        else:
            assert torch.equal(tensor, exact[name].to(dtype)), name
    # Also what the adapter leaves alone is as it was beneath it.
    assert not torch.equal(found["model.layers.0.mlp.up_proj.weight"], plain["model.layers.0.mlp.up_proj.weight"])
    assert torch.equal(found["lm_head.weight"], plain["lm_head.weight"])


@pytest.mark.parametrize("quantization", [Nf4(), Int8()])
def test_original_folds_into_the_weights_on_disk(quantization: Nf4 | Int8, tmp_path: Path) -> None:
    make_run(tmp_path, quantization)
    result = run_merge(tmp_path, base_precision="original")
    assert result["base_precision"] == "original"
    found = load_file(tmp_path / "out" / "model.safetensors")
    plain = load_file(tmp_path / "base" / "model.safetensors")
    adapter = load_file(tmp_path / "run" / "model" / "adapter_model.safetensors")
    prefix = "base_model.model.model.layers.1.self_attn.q_proj"
    delta = 1.5 * adapter[f"{prefix}.lora_B.weight"] @ adapter[f"{prefix}.lora_A.weight"]
    name = "model.layers.1.self_attn.q_proj.weight"
    torch.testing.assert_close(found[name], plain[name] + delta)
    assert torch.equal(found["model.layers.0.mlp.up_proj.weight"], plain["model.layers.0.mlp.up_proj.weight"])


@pytest.mark.parametrize("quantization", [Nf4(), Int8()])
@pytest.mark.parametrize("base_precision", ["dequantized", "original"])
def test_each_choice_is_proven_against_the_base_that_it_names(
    quantization: Nf4 | Int8, base_precision: Any, tmp_path: Path, with_tokenizer: Any
) -> None:
    make_run(tmp_path, quantization)
    with_tokenizer(tmp_path / "base")
    (tmp_path / "text.txt").write_text("one two three " * 8)
    text = str(tmp_path / "text.txt")
    proof = run_merge(tmp_path, base_precision=base_precision, verify=True, text=text)["proof"]
    assert proof["judged"]
    assert proof["holds"]
    other = proof["other_base_precision_perplexity"]
    assert other != proof["reference_perplexity"]
    assert abs(other - proof["reference_perplexity"]) < 10


@pytest.mark.parametrize("quantization", [Nf4(), Nf4(double=False), Int8()])
def test_a_base_whose_files_are_quantized_is_dequantized(quantization: Nf4 | Int8, tmp_path: Path) -> None:
    exact = make_run(tmp_path, quantization)
    stored = AutoModelForCausalLM.from_pretrained(
        tmp_path / "base", dtype=torch.float32, quantization_config=quantization.loading_config(torch.float32)
    )
    stored.save_pretrained(tmp_path / "small")
    base = str(tmp_path / "small")
    merge_adapters(base, [str(tmp_path / "run")], out=tmp_path / "out", verify=False)
    found = load_file(tmp_path / "out" / "model.safetensors")
    assert set(found) == set(load_file(tmp_path / "base" / "model.safetensors"))
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, exact[name], rtol=1.3e-6, atol=1e-6)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert "quantization_config" not in config
    assert config["dtype"] == "float32"
    with pytest.raises(ModelError, match="Name the model that it was made from"):
        merge_adapters(base, [str(tmp_path / "run")], out=tmp_path / "two", base_precision="original")
    assert not (tmp_path / "two").exists()


def test_adapters_above_different_formats_have_no_base_in_common(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    make_run(tmp_path / "one", Nf4())
    make_run(tmp_path / "two", Int8())
    adapters = [str(tmp_path / "one" / "run"), str(tmp_path / "two" / "run")]
    base = str(tmp_path / "one" / "base")
    with pytest.raises(RecipeError, match="int8, nf4"):
        merge_adapters(base, adapters, out=tmp_path / "out", verify=False)
    merge_adapters(base, adapters, out=tmp_path / "out", verify=False, base_precision="original")
    assert (tmp_path / "out" / "config.json").exists()
