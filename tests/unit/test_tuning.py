"""Which weights move, by name, and what cannot be done is refused with a reason."""

from pathlib import Path

import pytest
import torch
from peft import IA3Config, LoraConfig, PeftConfig, PeftModel, get_peft_model
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, MixtralConfig, MixtralForCausalLM

from ftk.core.errors import RecipeError
from ftk.tuning.full import Full
from ftk.tuning.lora import Lora, expert_parameters

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

SIZES = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": 32,
}


def llama(**more: object) -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SIZES, **more))


def mixtral() -> MixtralForCausalLM:
    torch.manual_seed(0)
    return MixtralForCausalLM(MixtralConfig(**SIZES, num_local_experts=4, num_experts_per_tok=2))


def trained(model: nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_full_tuning_moves_every_weight() -> None:
    model = llama()
    model.requires_grad_(False)
    assert trained(Full().apply(model)) == {name for name, _ in model.named_parameters()}


def test_all_linear_takes_every_product_but_the_head() -> None:
    names = trained(Lora(rank=2).apply(llama()))
    adapted = {name.removeprefix("base_model.model.model.layers.").split(".lora_")[0] for name in names}
    blocks = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"]
    blocks += ["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]
    assert adapted == {f"{layer}.{block}" for layer in (0, 1) for block in blocks}


def test_fused_experts_are_adapted() -> None:
    model = mixtral()
    assert expert_parameters(model) == ["experts.down_proj", "experts.gate_up_proj"]
    names = trained(Lora(rank=2).apply(model))
    for layer in (0, 1):
        # PEFT nests one wrapper a parameter: `experts` and, within it, `base_layer`.
        for wrapper in ("experts.lora_A", "experts.base_layer.lora_A"):
            assert f"base_model.model.model.layers.{layer}.mlp.{wrapper}.default.weight" in names


def test_a_fused_expert_learns_through_its_adapter() -> None:
    model = Lora(rank=2).apply(mixtral())
    tokens = torch.randint(0, 32, (2, 8))
    model(input_ids=tokens, labels=tokens).loss.backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters() if "experts" in name}
    moved = [name for name, gradient in gradients.items() if gradient is not None and gradient.abs().sum() > 0]
    assert {name.split(".lora_")[-1][0] for name in moved} == {"B"}  # A waits for B to leave zero
    assert len(moved) == 4


@pytest.mark.parametrize("wrong", [Lora(dropout=0.1), Lora(dora=True)])
def test_what_experts_cannot_do_is_refused(wrong: Lora) -> None:
    with pytest.raises(RecipeError, match=r"experts\.down_proj.*neither dropout nor dora"):
        wrong.apply(mixtral())


def test_a_missing_target_lists_those_that_exist() -> None:
    with pytest.raises(RecipeError, match=r"called q_prj\. Did you mean q_proj\? It has: down_proj, gate_proj, k_proj"):
        Lora(target_modules=("q_prj",)).apply(llama())


def test_named_targets_and_the_head() -> None:
    names = trained(Lora(rank=2, target_modules=("v_proj", "lm_head")).apply(llama(tie_word_embeddings=False)))
    assert len(names) == 2 * 2 + 2
    assert any("lm_head.lora_A" in name for name in names)


def test_a_fresh_adapter_changes_nothing_and_is_float32() -> None:
    tokens = torch.arange(8)[None]
    model = llama().to(torch.bfloat16).eval()
    before = model(tokens).logits
    adapted = Lora(rank=4).apply(model).eval()
    torch.testing.assert_close(adapted(tokens).logits, before, rtol=0, atol=0)
    assert {p.dtype for p in adapted.parameters() if p.requires_grad} == {torch.float32}


@pytest.mark.parametrize(("rslora", "scale"), [(False, 8 / 4), (True, 8 / 2)])
def test_scale_is_alpha_over_rank_or_its_root(rslora: bool, scale: float) -> None:
    """Fixed point: with A and B all ones the update of a row x is scale * rank * sum(x)."""
    model = llama().eval()
    layer = model.model.layers[0].self_attn.q_proj
    adapted = Lora(rank=4, alpha=8, target_modules=("q_proj",), rslora=rslora).apply(model)
    wrapped = adapted.get_submodule("base_model.model.model.layers.0.self_attn.q_proj")
    nn.init.ones_(wrapped.lora_A["default"].weight)
    nn.init.ones_(wrapped.lora_B["default"].weight)
    x = torch.ones(1, 16)
    torch.testing.assert_close(wrapped(x) - nn.functional.linear(x, layer.weight), torch.full((1, 16), scale * 4 * 16))


def adapted(folder: Path, config: PeftConfig) -> PeftModel:
    """A model with an adapter that has learned something, as it is loaded to be used."""
    made = get_peft_model(llama(), config)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    made.save_pretrained(folder)
    return PeftModel.from_pretrained(llama(), folder)


def test_an_adapter_goes_on_as_it_is(tmp_path: Path) -> None:
    config = LoraConfig(r=2, lora_alpha=6, lora_dropout=0.5, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    model = adapted(tmp_path, config)
    tokens = torch.arange(8)[None]
    before = model(input_ids=tokens).logits
    assert trained(model) == set()
    tuned = Lora(alpha=6, target_modules=["q_proj", "v_proj"]).apply(model)
    assert tuned is model
    assert trained(model) == {name for name, _ in model.named_parameters() if "lora_" in name}
    assert torch.equal(model.eval()(input_ids=tokens).logits, before)
    assert not torch.equal(model.train()(input_ids=tokens).logits, before)
    # The dropout alone may be another one.
    assert torch.equal(Lora(dropout=0.0).apply(model)(input_ids=tokens).logits, before)


@pytest.mark.parametrize(
    ("tuning", "place"),
    [
        (Lora(rank=16), "tuning.rank"),
        (Lora(alpha=32), "tuning.alpha"),
        (Lora(dora=True), "tuning.dora"),
        (Lora(rslora=True), "tuning.rslora"),
        (Lora(target_modules="all-linear"), "tuning.target_modules"),
        (Lora(target_modules="k_proj"), "tuning.target_modules"),
    ],
)
def test_an_adapter_does_not_go_on_as_another(tmp_path: Path, tuning: Lora, place: str) -> None:
    model = adapted(tmp_path, LoraConfig(r=2, lora_alpha=6, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    with pytest.raises(RecipeError, match="made with") as refusal:
        tuning.apply(model)
    assert refusal.value.place == place


def test_an_adapter_of_another_kind_does_not_go_on(tmp_path: Path) -> None:
    config = IA3Config(target_modules=["k_proj"], feedforward_modules=[], task_type="CAUSAL_LM")
    with pytest.raises(RecipeError, match="kind ia3"):
        Lora().apply(adapted(tmp_path, config))
