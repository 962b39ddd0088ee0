"""Parameter counts from plain numbers, against published counts and against what transformers and PEFT build."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from ftk.memory import catalogue
from ftk.memory.architecture import FAMILIES, Architecture, from_config
from ftk.memory.built import inventory_of
from ftk.memory.parameters import inventory
from ftk.memory.setup import Adapter
from ftk.memory.stored import adapter_weights, trained_sizes
from ftk.models.settings import ModelSettings
from ftk.runs.model_numbers import model_numbers
from ftk.tuning.lora import Lora

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
PUBLISHED = Path(__file__).parents[3] / "shared" / "data" / "model_architectures.json"
TINY = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "vocab_size": 128,
    "max_position_embeddings": 64,
    "head_dim": 8,
    "tie_word_embeddings": False,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
MIXTURES = {
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24},
}


def tiny_config(family: str) -> dict[str, Any]:
    config = TINY | MIXTURES.get(family, {}) | {"model_type": family}
    if family == "gpt_neox":
        del config["num_key_value_heads"], config["head_dim"]
    return config


def tiny_architecture(family: str) -> Architecture:
    architecture = from_config(tiny_config(family))
    assert architecture is not None
    return architecture


def built(family: str) -> Any:
    config = tiny_config(family)
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(config.pop("model_type"), **config))


def test_counts_are_the_published_ones_to_the_unit() -> None:
    if not PUBLISHED.exists():
        pytest.skip(f"{PUBLISHED} is not here")
    published = json.loads(PUBLISHED.read_text())
    counted = {name: model_numbers(ModelSettings(id=name)).weights.total for name in published}
    assert counted == {name: facts["num_parameters"] for name, facts in published.items()}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_counts_as_transformers_builds_it(family: str) -> None:
    model, weights = built(family), inventory(tiny_architecture(family))
    assert weights.total == sum(parameter.numel() for parameter in model.parameters())
    assert sum(trained_sizes(weights, None)) == weights.total
    counted = inventory_of(model)
    assert (counted.total, counted.active) == (weights.total, weights.active)
    own = {one.name: (one.in_features, one.out_features, one.bias) for one in weights.linears}
    theirs = {one.name: (one.in_features, one.out_features, one.bias) for one in counted.linears}
    assert own == theirs


@pytest.mark.parametrize("family", ["llama", "gpt_neox", "phi3", "mixtral", "qwen3_moe"])
def test_adapters_count_as_peft_makes_them(family: str) -> None:
    weights = inventory(tiny_architecture(family))
    tuned = Lora(rank=4).apply(built(family))
    made = [parameter.numel() for parameter in tuned.parameters() if parameter.requires_grad]
    assert adapter_weights(weights, Adapter(4, None)) == sum(made)
    assert sorted(trained_sizes(weights, Adapter(4, None))) == sorted(made)


def test_named_targets_and_dora_count_as_peft_makes_them() -> None:
    tuned = Lora(rank=4, target_modules=("q_proj", "down_proj"), dora=True).apply(
        AutoModelForCausalLM.from_config(AutoConfig.for_model(**tiny_config("llama")))
    )
    made = sum(parameter.numel() for parameter in tuned.parameters() if parameter.requires_grad)
    adapter = Adapter(4, frozenset({"q_proj", "down_proj"}), decomposed=True)
    assert adapter_weights(inventory(tiny_architecture("llama")), adapter) == made


def test_active_parameters_leave_out_the_experts_that_a_token_does_not_go_to() -> None:
    weights = inventory(tiny_architecture("mixtral"))
    # Two layers, two of four experts idle, three matrices of 32 x 48 each.
    assert weights.total - weights.active == 2 * 2 * 3 * 32 * 48


def test_an_architecture_without_a_table_is_counted_on_the_meta_device(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 128}))
    numbers = model_numbers(ModelSettings(id=str(config)))
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**json.loads(config.read_text())))
    assert numbers.weights.total == model.num_parameters()
    assert not numbers.is_known
    assert numbers.weights.tied


def test_ids_are_found_in_any_case_and_by_the_names_of_tuned_variants() -> None:
    known = catalogue.look_up("Qwen/Qwen3-8B")
    assert known is not None
    assert catalogue.look_up("qwen/qwen3-8b-base") == known
    assert catalogue.look_up("no/such-model") is None
    assert catalogue.near("meta-lama/Llama-3.1-8B")[0] == "meta-llama/Llama-3.1-8B"
    assert catalogue.near("meta-llama/llama-3-8b")[0] == "meta-llama/Meta-Llama-3-8B"
