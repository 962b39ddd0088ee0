"""A mixture of experts made of dense models computes what they compute."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from ftk.merging.method import MergeError
from ftk.merging.moe import (
    alike_layers,
    expert_tensor,
    hidden_router,
    layout_for,
    moe_config,
    moe_tensors,
    prompt_states,
    random_router,
    uniform_router,
)

LAYERS, WIDTH, VOCABULARY, EXPERTS = 2, 16, 64, 3
SIZES: dict[str, Any] = {
    "hidden_size": WIDTH,
    "intermediate_size": 32,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": VOCABULARY,
    "rms_norm_eps": 1e-3,
}
KINDS: dict[str, Any] = {
    "llama": (LlamaForCausalLM, LlamaConfig),
    "mistral": (MistralForCausalLM, MistralConfig),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config),
}
TOKENS = torch.arange(20).view(2, 10)


def dense(kind: str, seed: int) -> PreTrainedModel:
    model_class, config_class = KINDS[kind]
    torch.manual_seed(seed)
    model: PreTrainedModel = model_class(config_class(**SIZES, **({"head_dim": 8} if kind == "qwen3" else {})))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    return model.eval()


def mixture(
    folder: Path,
    base: PreTrainedModel,
    experts: list[PreTrainedModel],
    router_LED: Tensor,
    *,
    shared: dict[str, Tensor] | None = None,
) -> PreTrainedModel:
    """As transformers loads what the plan says."""
    config = base.config.to_dict()
    layout = layout_for([config["model_type"]], num_shared=int(shared is not None))
    made = moe_config(config, layout, num_experts=len(experts), experts_per_token=2)
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(made))
    states = [expert.state_dict() for expert in experts]
    tensors = {}
    for one in moe_tensors(list(base.state_dict()), layout, num_experts=len(experts)):
        if one.of == "router":
            tensors[one.name] = router_LED[one.layer].clone()
        elif one.of == "shared_router":
            tensors[one.name] = torch.zeros(1, WIDTH)
        else:
            origin = {"base": base.state_dict(), "shared": shared}.get(one.of) or states[one.expert or 0]
            tensors[one.name] = origin[str(one.source)].clone()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    loaded, report = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), report
    return loaded.eval()


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_a_mixture_of_copies_is_the_model_itself(kind: str, tmp_path: Path) -> None:
    base = dense(kind, 0)
    router = random_router(LAYERS, EXPERTS, WIDTH, generator=torch.Generator().manual_seed(0))
    # A shared expert that adds nothing.
    silent = {name: torch.zeros_like(tensor) for name, tensor in base.state_dict().items()} if kind == "qwen2" else None
    loaded = mixture(tmp_path / "moe", base, [base] * EXPERTS, router, shared=silent)
    torch.testing.assert_close(loaded(TOKENS).logits, base(TOKENS).logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["mistral", "qwen3"])
@torch.no_grad()
def test_a_router_chooses_the_experts_of_its_rows(kind: str, tmp_path: Path) -> None:
    """Two rows that always win by far over the third: the two equal experts behind them are all that is heard."""
    base, other, unheard = dense(kind, 0), dense(kind, 1), dense(kind, 2)
    experts = [other, unheard, other]
    for name, parameter in base.named_parameters():
        if ".mlp." in name:
            continue
        other.get_parameter(name).copy_(parameter)
    rows = torch.stack([torch.ones(WIDTH), torch.zeros(WIDTH), -torch.ones(WIDTH)]) * 1e4
    router = rows.expand(LAYERS, EXPERTS, WIDTH)
    # One of the outer rows wins, and the other loses to the row of zeros; which has weight exp(-1e4), hence none.
    loaded = mixture(tmp_path / "moe", base, experts, router)
    torch.testing.assert_close(loaded(TOKENS).logits, other(TOKENS).logits, rtol=1e-4, atol=1e-4)


def test_prompt_states_look_at_tokens_alone() -> None:
    hidden = torch.randn(LAYERS, 2, 4, WIDTH)
    mask = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 0]])
    last = prompt_states(hidden, mask, pooled="last")
    torch.testing.assert_close(last, (hidden[:, 0, 3] + hidden[:, 1, 2]) / 2)
    mean = prompt_states(hidden, mask, pooled="mean")
    torch.testing.assert_close(mean, (hidden[:, 0, 2:].mean(1) + hidden[:, 1, :3].mean(1)) / 2)


def test_hidden_router_prefers_its_own_prompts() -> None:
    positive = torch.randn(EXPERTS, LAYERS, WIDTH)
    router = hidden_router(positive)
    assert router.shape == (LAYERS, EXPERTS, WIDTH)
    torch.testing.assert_close(router.norm(dim=-1), torch.ones(LAYERS, EXPERTS))
    for expert in range(EXPERTS):
        scores = torch.einsum("led,ld->le", router, positive[expert])
        assert scores.argmax(1).tolist() == [expert] * LAYERS
    negative = hidden_router(positive, positive.flip(0))
    expected = (positive[0, 1] - positive[2, 1]) / (positive[0, 1] - positive[2, 1]).norm()
    torch.testing.assert_close(negative[1, 0], expected)


def test_uniform_router_is_like_a_new_linear_layer() -> None:
    rows = uniform_router(10, 100, 64, generator=torch.Generator().manual_seed(0))
    assert float(rows.abs().max()) <= 1 / 8
    assert float(rows.std()) == pytest.approx(1 / 8 / math.sqrt(3), rel=0.01)


def test_alike_prompts_are_found() -> None:
    rows = torch.eye(3, 8).expand(2, 3, 8).clone()
    rows[1, 2] = rows[1, 1] + 0.01 * rows[1, 0]
    assert alike_layers(rows) == [1]


def test_noise_and_residual_scale() -> None:
    tensor = torch.ones(300, 300, dtype=torch.bfloat16)

    def made(**given: Any) -> Tensor:
        chosen = {"is_residual": True, "noise_scale": 0.0, "residual_scale": 1.0} | given
        return expert_tensor(tensor, generator=torch.Generator().manual_seed(0), **chosen)

    assert made() is tensor
    assert torch.equal(made(residual_scale=0.5), tensor * 0.5)
    assert torch.equal(made(residual_scale=0.5, is_residual=False), tensor)
    noisy = made(noise_scale=0.1)
    assert noisy.dtype == torch.bfloat16
    assert float((noisy.float() - 1).std()) == pytest.approx(0.1, rel=0.02)


def test_what_cannot_be_mixed_is_said() -> None:
    with pytest.raises(MergeError, match="type gemma, of which no mixture"):
        layout_for(["gemma"], num_shared=0)
    with pytest.raises(MergeError, match="qwen2_moe has exactly one shared expert, and 0 are given"):
        layout_for(["qwen2", "qwen2"], num_shared=0)
    mixtral = layout_for(["llama", "mistral"], num_shared=0)
    with pytest.raises(MergeError, match=r"no place for model\.layers\.0\.self_attn\.q_proj\.bias"):
        list(moe_tensors(["model.layers.0.self_attn.q_proj.bias"], mixtral, num_experts=2))
    with pytest.raises(MergeError, match="experts_per_token is 3, expected 1 to the number of experts, 2"):
        moe_config({"intermediate_size": 4}, mixtral, num_experts=2, experts_per_token=3)
