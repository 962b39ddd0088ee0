"""Adapters that no ftk run made, above four-bit bases that --quantization names; and GPT-2's weights in few bits."""

from pathlib import Path
from typing import Any

import pytest
import torch
from adapter_bases import gpt2, llama, shaken
from peft import LoraConfig, get_peft_model
from peft.utils.integrations import dequantize_module_weight
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig
from transformers.pytorch_utils import Conv1D

from ftk.runs.merging.adapters import merge_adapters

pytestmark = [pytest.mark.filterwarnings("ignore")]
LORA = {"llama": ["q_proj", "down_proj"], "gpt2": ["c_attn", "c_fc", "c_proj"]}
BUILD = {"llama": llama, "gpt2": gpt2}


def bits(name: str, dtype: torch.dtype) -> BitsAndBytesConfig:
    if name == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=name.removesuffix("-single"),
        bnb_4bit_use_double_quant=not name.endswith("-single"),
        bnb_4bit_compute_dtype=dtype,
    )


def trained_above(model: str, name: str, dtype: torch.dtype, folder: Path) -> dict[str, torch.Tensor]:
    """A base and an adapter for it as stored in few bits; the exact merged weights, in float64."""
    torch.manual_seed(0)
    plain = BUILD[model]().to(dtype)
    plain.save_pretrained(folder / "base")
    stored_transposed = {f"{key}.weight" for key, module in plain.named_modules() if isinstance(module, Conv1D)}
    base = AutoModelForCausalLM.from_pretrained(
        folder / "base", dtype=dtype, quantization_config=bits(name, dtype), device_map="cpu"
    )
    modules = {key: module for key, module in base.named_modules() if hasattr(module, "weight")}
    exact = {f"{key}.weight": dequantize_module_weight(module).double() for key, module in modules.items()}
    adapted = get_peft_model(base, LoraConfig(r=4, lora_alpha=6, target_modules=LORA[model]))
    shaken(adapted)
    for key, module in adapted.base_model.model.named_modules():
        if hasattr(module, "lora_A"):
            delta = module.lora_B.default.weight.double() @ module.lora_A.default.weight.double()
            exact[f"{key}.weight"] = exact[f"{key}.weight"] + 1.5 * delta
    adapted.save_pretrained(folder / "adapter", save_embedding_layers=False)
    return {key: tensor.T if key in stored_transposed else tensor for key, tensor in exact.items()}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    ("model", "name"),
    [("llama", "fp4"), ("llama", "fp4-single"), ("llama", "nf4-single"), ("gpt2", "nf4"), ("gpt2", "int8")],
)
def test_what_the_flag_names_is_what_the_adapter_is_folded_into(
    model: str, name: Any, dtype: torch.dtype, tmp_path: Path
) -> None:
    exact = trained_above(model, name, dtype, tmp_path)
    result = merge_adapters(None, [str(tmp_path / "adapter")], quantization=name, out=tmp_path / "out", verify=False)
    assert result["base_precision"] == "dequantized"
    found, plain = load_file(tmp_path / "out" / "model.safetensors"), load_file(tmp_path / "base" / "model.safetensors")
    assert found.keys() == plain.keys()
    for key, tensor in found.items():
        assert tensor.dtype == dtype
        torch.testing.assert_close(
            tensor.double(), exact.get(key, plain[key].double()), rtol=torch.finfo(dtype).eps, atol=2e-6
        )
    some = next(key for key in plain if f"{LORA[model][0]}.weight" in key)
    assert (exact[some] - plain[some].double()).abs().max() > 1e-2


@pytest.mark.parametrize(("model", "name"), [("llama", "fp4"), ("llama", "fp4-single"), ("gpt2", "nf4")])
def test_files_in_four_bits_are_dequantized(model: str, name: str, tmp_path: Path) -> None:
    dtype = torch.bfloat16
    exact = trained_above(model, name, dtype, tmp_path)
    stored = AutoModelForCausalLM.from_pretrained(
        tmp_path / "base", dtype=dtype, quantization_config=bits(name, dtype), device_map="cpu"
    )
    stored.save_pretrained(tmp_path / "small")
    merge_adapters(str(tmp_path / "small"), [str(tmp_path / "adapter")], out=tmp_path / "out", verify=False)
    found, plain = load_file(tmp_path / "out" / "model.safetensors"), load_file(tmp_path / "base" / "model.safetensors")
    assert found.keys() == plain.keys()
    for key, tensor in found.items():
        expected = exact.get(key, plain[key].double())
        torch.testing.assert_close(tensor.double(), expected, rtol=torch.finfo(dtype).eps, atol=2e-6)
