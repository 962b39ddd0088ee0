"""Adapters folded from files into files say what PEFT's own model with the adapter beside its base says."""

from pathlib import Path
from typing import Any

import pytest
import torch
from adapter_bases import (
    VOCABULARY,
    Build,
    beside,
    gemma,
    gpt2,
    llama,
    logits,
    merged,
    mixtral,
    qwen,
    saved,
    shaken,
    tied,
)
from peft import (
    IA3Config,
    LNTuningConfig,
    LoraConfig,
    TrainableTokensConfig,
    VeraConfig,
    get_peft_model,
)
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
)

from ftk.runs.merging.adapter_folder import write_adapter
from ftk.runs.merging.adapters import merge_adapters

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("quiet")]


@pytest.fixture
def quiet() -> None:
    from ftk.runs.quiet import quieten

    quieten()


ATTENTION = ["q_proj", "v_proj"]
LINEAR = [*ATTENTION, "k_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
GPT2_MODULES = ["c_attn", "c_proj", "c_fc"]


def seeded_vera() -> VeraConfig:
    """PEFT warns of leaving the projections out."""
    return VeraConfig(r=8, target_modules=LINEAR, projection_prng_key=3, save_projection=False)


CASES: dict[str, tuple[Build, Any]] = {
    "lora": (llama, LoraConfig(r=4, lora_alpha=7, target_modules=LINEAR)),
    "rslora": (llama, LoraConfig(r=4, lora_alpha=7, target_modules=LINEAR, use_rslora=True)),
    "patterns": (
        llama,
        LoraConfig(
            r=4,
            target_modules=LINEAR,
            rank_pattern={"q_proj": 2, r"layers\.1\.mlp\.up_proj": 8},
            alpha_pattern={"v_proj": 3, "layers.0.self_attn.q_proj": 5},
        ),
    ),
    "one layer": (llama, LoraConfig(r=4, target_modules=ATTENTION, layers_to_transform=[1])),
    "dora": (llama, LoraConfig(r=4, target_modules=LINEAR, use_dora=True)),
    "dora gpt2": (gpt2, LoraConfig(r=4, target_modules=GPT2_MODULES, use_dora=True, fan_in_fan_out=True)),
    "gpt2": (gpt2, LoraConfig(r=4, target_modules=GPT2_MODULES, fan_in_fan_out=True)),
    "gpt2 and head": (gpt2, LoraConfig(r=4, target_modules=[*GPT2_MODULES, "lm_head"])),
    "bias all": (qwen, LoraConfig(r=4, target_modules=ATTENTION, bias="all")),
    "bias lora_only": (qwen, LoraConfig(r=4, target_modules=ATTENTION, bias="lora_only")),
    "lora_bias": (qwen, LoraConfig(r=4, target_modules=ATTENTION, lora_bias=True)),
    "modules_to_save": (
        llama,
        LoraConfig(r=4, target_modules=ATTENTION, modules_to_save=["lm_head", "norm", "embed_tokens"]),
    ),
    "embedding": (llama, LoraConfig(r=4, target_modules=[*ATTENTION, "embed_tokens", "lm_head"])),
    "embedding dora": (llama, LoraConfig(r=4, target_modules=["embed_tokens", "q_proj"], use_dora=True)),
    "tied": (tied, LoraConfig(r=4, target_modules=ATTENTION)),
    "tied embedding": (tied, LoraConfig(r=4, target_modules=["embed_tokens", "q_proj"])),
    "tied head": (tied, LoraConfig(r=4, target_modules=["lm_head", "q_proj"])),
    "tied embedding saved": (tied, LoraConfig(r=4, target_modules=ATTENTION, modules_to_save=["embed_tokens"])),
    "tied embedding saved with its head": (
        tied,
        LoraConfig(r=4, target_modules=ATTENTION, modules_to_save=["embed_tokens"], ensure_weight_tying=True),
    ),
    "tied embedding and head adapted as one": (
        tied,
        LoraConfig(r=4, target_modules=["embed_tokens", "q_proj"], ensure_weight_tying=True),
    ),
    "tied tokens": (tied, LoraConfig(r=4, target_modules=ATTENTION, trainable_token_indices=[3, 9, 12])),
    "gemma": (gemma, LoraConfig(r=4, target_modules=[*LINEAR, "embed_tokens"])),
    "gemma tokens": (gemma, LoraConfig(r=4, target_modules=ATTENTION, trainable_token_indices=[3, 9, 12])),
    "tokens": (llama, LoraConfig(r=4, target_modules=ATTENTION, trainable_token_indices=[3, 9, 12])),
    "tokens named": (
        llama,
        LoraConfig(r=4, target_modules=ATTENTION, trainable_token_indices={"embed_tokens": [3, 9], "lm_head": [5]}),
    ),
    "tokens alone": (llama, TrainableTokensConfig(token_indices=[4, 7], target_modules=["embed_tokens"])),
    "fused experts": (
        mixtral,
        LoraConfig(
            r=4,
            target_modules=ATTENTION,
            target_parameters=["experts.gate_up_proj", "experts.down_proj"],
            alpha_pattern={r".*\.down_proj": 5},
        ),
    ),
    "one fused parameter": (mixtral, LoraConfig(r=4, target_modules=[], target_parameters=["experts.down_proj"])),
    "ia3": (
        llama,
        IA3Config(target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"]),
    ),
    "ia3 biases": (qwen, IA3Config(target_modules=["k_proj", "v_proj"], feedforward_modules=[])),
    "ia3 gpt2": (
        gpt2,
        IA3Config(target_modules=["c_attn", "mlp.c_proj"], feedforward_modules=["mlp.c_proj"], fan_in_fan_out=True),
    ),
    "vera": (llama, VeraConfig(r=8, target_modules=LINEAR, projection_prng_key=3)),
    "vera seeded": (llama, seeded_vera),
    "ln_tuning": (llama, LNTuningConfig(target_modules=["input_layernorm", "norm"])),
    "ln_tuning gpt2": (gpt2, LNTuningConfig(target_modules=["ln_1", "ln_f"])),
}


@pytest.mark.parametrize("name", CASES)
def test_folded_says_what_the_adapter_beside_its_base_says(name: str, tmp_path: Path) -> None:
    base, adapter = saved(*CASES[name], tmp_path)
    merge_adapters(None, [str(adapter)], out=tmp_path / "out", verify=False)
    expected = logits(beside(base, adapter))
    unchanged = logits(AutoModelForCausalLM.from_pretrained(base))
    assert (expected - unchanged).abs().max() > 1e-3
    torch.testing.assert_close(logits(merged(tmp_path / "out")), expected, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize(
    ("name", "stays"),
    [
        ("tied", True),
        ("tied embedding", False),
        ("tied head", False),
        ("tied embedding saved with its head", True),
        ("tied embedding and head adapted as one", True),
        ("tied tokens", True),
    ],
)
def test_a_tied_head_stays_tied_unless_the_adapter_makes_it_another(name: str, stays: bool, tmp_path: Path) -> None:
    _, adapter = saved(*CASES[name], tmp_path)
    result = merge_adapters(None, [str(adapter)], out=tmp_path / "out", verify=False)
    model = merged(tmp_path / "out")
    assert (model.lm_head.weight is model.model.embed_tokens.weight) == stays
    assert result["untied"] == ([] if stays else ["lm_head.weight"])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["lora", "dora", "vera", "ia3", "fused experts"])
def test_a_sixteen_bit_weight_is_rounded_once(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    """Every number of the merged model is the nearest one to what PEFT computes from the same weights in float32."""
    base, adapter = saved(*CASES[name], tmp_path, dtype=dtype)
    merge_adapters(None, [str(adapter)], out=tmp_path / "out", verify=False)
    exact = beside(base, adapter).merge_and_unload().state_dict()
    found = merged(tmp_path / "out", dtype).state_dict()
    assert all(tensor.dtype == dtype for tensor in found.values())
    for key, tensor in found.items():
        near = exact[key].to(dtype)
        # float32 itself may end up on either side of the middle between two numbers of 16 bits.
        assert (tensor != near).float().mean() < 2e-3, key
        torch.testing.assert_close(tensor, near)


def test_rows_of_added_tokens_are_carried_over(tmp_path: Path) -> None:
    torch.manual_seed(0)
    llama().save_pretrained(tmp_path / "base")
    grown = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    grown.resize_token_embeddings(VOCABULARY + 3)
    adapted = get_peft_model(grown, LoraConfig(r=4, target_modules=ATTENTION))
    shaken(adapted)
    adapted.save_pretrained(tmp_path / "adapter", save_embedding_layers=True)
    merge_adapters(None, [str(tmp_path / "adapter")], out=tmp_path / "out", verify=False)
    found = merged(tmp_path / "out")
    assert found.config.vocab_size == VOCABULARY + 3
    torch.testing.assert_close(logits(found), logits(adapted), rtol=1e-4, atol=2e-5)


def test_files_that_name_the_backbone_alone_are_understood(tmp_path: Path) -> None:
    """GPT-2 on the hub calls its layers h.0, which the model calls transformer.h.0."""
    base, adapter = saved(*CASES["gpt2"], tmp_path)
    expected = logits(beside(base, adapter))
    tensors = load_file(base / "model.safetensors")
    save_file(
        {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()},
        base / "model.safetensors",
        metadata={"format": "pt"},
    )
    merge_adapters(None, [str(adapter)], out=tmp_path / "out", verify=False)
    torch.testing.assert_close(logits(merged(tmp_path / "out")), expected, rtol=1e-4, atol=2e-5)
    assert set(load_file(tmp_path / "out" / "model.safetensors")) == set(load_file(base / "model.safetensors"))


def test_experts_adapted_one_by_one_fold_into_files_that_hold_them_so(tmp_path: Path) -> None:
    """Adapters of transformers 4, which had a module for each expert."""
    base, _ = saved(*CASES["fused experts"], tmp_path)
    torch.manual_seed(1)
    expert = "model.layers.0.block_sparse_moe.experts.2.w1"
    a, b = torch.randn(4, 32), torch.randn(48, 4)
    (tmp_path / "adapter").mkdir(exist_ok=True)
    write_adapter(
        tmp_path / "adapter",
        {"peft_type": "LORA", "r": 4, "lora_alpha": 6, "base_model_name_or_path": str(base)},
        {f"base_model.model.{expert}.lora_A.weight": a, f"base_model.model.{expert}.lora_B.weight": b},
    )
    result = merge_adapters(None, [str(tmp_path / "adapter")], out=tmp_path / "out", verify=False)
    before, after = load_file(base / "model.safetensors"), load_file(tmp_path / "out" / "model.safetensors")
    torch.testing.assert_close(after[f"{expert}.weight"], before[f"{expert}.weight"] + 6 / 4 * b @ a)
    assert [name for name in before if not torch.equal(before[name], after[name])] == [f"{expert}.weight"]
    assert result["num_changed"] == 1
