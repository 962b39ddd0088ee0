"""Embeddings, head and norms trained whole beside adapters: which move, with which gradient, and how they come back."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from ftk.core.errors import RecipeError
from ftk.core.types import Batch
from ftk.models.scoring import ScoringModel
from ftk.numerics.head import Budget
from ftk.recipe.load import load_recipe
from ftk.train.optimizers import AdamW
from ftk.train.own_rates import give_own_rates, own_learning_rate, set_learning_rate
from ftk.train.precision import store_trained_in_float32
from ftk.tuning.lora import Lora

pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False:UserWarning"),
    pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True` and a tied layer:UserWarning"),
]

SIZES: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": 48,
}
ROW = torch.tensor([[5, 9, 1, 40, 7, 3, 21, 8]])
KINDS = ("llama tied", "llama", "gpt2 tied")


def build(kind: str) -> Any:
    torch.manual_seed(0)
    if kind == "gpt2 tied":
        return GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=2, n_head=2, vocab_size=48, n_positions=32))
    return LlamaForCausalLM(LlamaConfig(**SIZES, tie_word_embeddings=kind == "llama tied"))


def beside(model: nn.Module) -> set[str]:
    """What is trained whole."""
    return {
        name.removeprefix("base_model.model.").replace(".modules_to_save.default", "")
        for name, parameter in model.named_parameters(remove_duplicate=False)
        if parameter.requires_grad and ".lora_" not in name
    }


def moved(kind: str) -> Any:
    """A model tuned with everything beside, no weight of which is where it began."""
    model: Any = Lora(rank=2, also=("embeddings", "head", "norms")).apply(build(kind))
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


def is_one_weight(model: Any) -> bool:
    base = model.get_base_model()
    return base.get_input_embeddings().weight is base.get_output_embeddings().weight


@pytest.mark.parametrize(
    ("also", "kind", "expected"),
    [
        ("embeddings", "llama", {"model.embed_tokens.weight"}),
        ("head", "llama", {"lm_head.weight"}),
        ("embeddings", "llama tied", {"model.embed_tokens.weight", "lm_head.weight"}),
        ("head", "llama tied", {"model.embed_tokens.weight", "lm_head.weight"}),
        ("embeddings", "gpt2 tied", {"transformer.wte.weight", "lm_head.weight"}),
        (
            "norms",
            "llama",
            {"model.norm.weight"}
            | {f"model.layers.{n}.{which}_layernorm.weight" for n in (0, 1) for which in ("input", "post_attention")},
        ),
    ],
)
def test_what_also_names_is_trained_and_nothing_else(also: str, kind: str, expected: set[str]) -> None:
    model = Lora.model_validate({"rank": 2, "also": also}).apply(build(kind))
    assert beside(model) == expected
    if "tied" in kind:
        assert is_one_weight(model)


@pytest.mark.parametrize("kept_bytes", [0, 10**9])
@pytest.mark.parametrize("kind", KINDS)
def test_chunks_give_the_gradients_of_full_logits(kind: str, kept_bytes: int) -> None:
    """The head's own gradient included, and where it is the embedding's, both parts of it."""
    chunked, plain = moved(kind).double(), moved(kind).double()
    scoring = ScoringModel(chunked, budget=Budget(chunk_tokens=3, kept_bytes=kept_bytes))
    assert scoring.head_note is None
    learned = torch.ones_like(ROW)
    learned[:, 0] = 0
    batch = Batch(
        input_ids_BL=ROW,
        position_ids_BL=torch.arange(ROW.shape[1])[None],
        document_ids_BL=torch.ones_like(ROW),
        weights_BL=learned.double(),
        answers_BL=learned > 0,
        packed=False,
        num_tokens=ROW.numel(),
        num_examples=1,
        indices=(0,),
    )
    (-(scoring(batch).logps_BL * batch.weights_BL).sum()).backward()
    logits = plain(input_ids=ROW, use_cache=False).logits
    nn.functional.cross_entropy(logits[0, :-1], ROW[0, 1:], reduction="sum").backward()
    found, expected = dict(chunked.named_parameters()), dict(plain.named_parameters())
    trained = [name for name, parameter in expected.items() if parameter.requires_grad]
    assert any("modules_to_save" in name and "lora" not in name for name in trained)
    for name in trained:
        assert expected[name].grad.abs().sum() > 0, name
        torch.testing.assert_close(found[name].grad, expected[name].grad, rtol=1e-9, atol=1e-12, msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_saved_with_the_adapter_and_right_after_reload(kind: str, tmp_path: Path) -> None:
    model = moved(kind)
    model.save_pretrained(tmp_path, save_embedding_layers=False)
    again: Any = PeftModel.from_pretrained(build(kind), tmp_path).eval()
    torch.testing.assert_close(again(input_ids=ROW).logits, model(input_ids=ROW).logits, rtol=0, atol=0)
    # It goes on: silent or saying the same, tied as it was, and moving what moved.
    whole = {"also": ["embeddings", "head", "norms"], "also_learning_rate": 1e-5}
    for said in ({}, whole):
        going_on = Lora.model_validate(said).apply(PeftModel.from_pretrained(build(kind), tmp_path))
        assert beside(going_on) == beside(model)
        assert is_one_weight(going_on) == ("tied" in kind)
    with pytest.raises(RecipeError, match=r"the recipe says .*norm.*made with .*embed|made with .*lm_head"):
        Lora.model_validate({"also": "norms"}).apply(PeftModel.from_pretrained(build(kind), tmp_path))


def test_trained_copies_are_float32_masters() -> None:
    model: Any = Lora(rank=2, also=("embeddings", "norms")).apply(build("llama tied").to(torch.bfloat16))
    store_trained_in_float32(model)
    assert {parameter.dtype for parameter in model.parameters() if parameter.requires_grad} == {torch.float32}
    assert is_one_weight(model)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        scoring = ScoringModel(model)
    assert scoring.head_note is None


def test_own_learning_rate_follows_the_schedule_and_moves_its_weights_alone() -> None:
    tuning = Lora(rank=2, also=("embeddings", "norms"), also_learning_rate=1e-4)
    model: Any = tuning.apply(build("llama tied"))
    optimizer = AdamW().build(model.named_parameters(), learning_rate=2e-3, weight_decay=0.1)
    give_own_rates(optimizer, model.named_parameters(), tuning.own_learning_rate, learning_rate=2e-3)
    set_learning_rate(optimizer, 1e-3)  # Half of the peak, as a schedule has it.
    assert own_learning_rate(optimizer, 1e-3) == pytest.approx(5e-5)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    seen = {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            name = names[id(parameter)]
            seen[name] = (group["lr"], group["weight_decay"])
    assert set(seen) == {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    for name, (rate, decay) in seen.items():
        assert rate == pytest.approx(5e-5 if ".lora_" not in name else 1e-3), name
        assert decay == (0.1 if ".lora_" in name else 0.0), name


def test_without_own_rates_nothing_is_told() -> None:
    model: Any = Lora(rank=2, also=("head",)).apply(build("llama"))
    optimizer = AdamW().build(model.named_parameters(), learning_rate=1e-3, weight_decay=0.0)
    give_own_rates(optimizer, model.named_parameters(), Lora().own_learning_rate, learning_rate=1e-3)
    assert own_learning_rate(optimizer, 1e-3) is None


def test_what_cannot_work_is_refused(recipe_file: Path) -> None:
    with pytest.raises(RecipeError, match=r"lm_head would get an adapter and be trained whole"):
        Lora(target_modules="lm_head", also=("head",)).apply(build("llama"))
    with pytest.raises(RecipeError, match=r"has no norms"):
        Lora(rank=2, also=("norms",)).apply(without_norms())
    for words, message in (
        (["tuning=lora", "tuning.also_learning_rate=1e-4"], "it names nothing"),
        (["tuning=lora", "tuning.also=[embedings]"], "Did you mean embeddings"),
        (["tuning=full", "tuning.also=[head]"], "tuning.also"),
    ):
        with pytest.raises(RecipeError, match=message):
            load_recipe(str(recipe_file), words)


def without_norms() -> Any:
    model = build("llama")
    model.model.norm = nn.Identity()
    for layer in model.model.layers:
        layer.input_layernorm = layer.post_attention_layernorm = nn.Identity()
    return model
