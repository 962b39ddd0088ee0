"""Several adapters together, and a LoRA out of two models, against PEFT and against plain linear algebra in float64."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from ftk.core.errors import ModelError, RecipeError
from ftk.merging.adapters.formulas import low_rank_approximation, rank_of_energy, recompress, singular_values
from ftk.runs.merging.adapters import merge_adapters
from ftk.runs.merging.extract import extract_adapter

pytestmark = [pytest.mark.filterwarnings("ignore")]
TOKENS = torch.arange(3, 35)[None]
MODULE = "model.layers.0.self_attn.q_proj"


def llama(folder: Path, *, seed: int = 0, **changes: Any) -> Path:
    torch.manual_seed(seed)
    config = LlamaConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        vocab_size=64,
        max_position_embeddings=64,
        **changes,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def adapter(base: Path, folder: Path, *, seed: int, **options: Any) -> Path:
    torch.manual_seed(seed)
    adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(base), LoraConfig(**options))
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            parameter.data.copy_(0.2 * torch.randn_like(parameter))
    adapted.save_pretrained(folder, save_embedding_layers=False)
    return folder


@pytest.fixture
def three(tmp_path: Path) -> list[Path]:
    """A base, and two adapters of different rank, scaling and modules."""
    base = llama(tmp_path / "base")
    one = adapter(base, tmp_path / "one", seed=1, r=4, lora_alpha=6, target_modules=["q_proj", "up_proj"])
    two = adapter(
        base, tmp_path / "two", seed=2, r=3, lora_alpha=4, target_modules=["q_proj", "down_proj"], use_rslora=True
    )
    return [base, one, two]


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=TOKENS).logits


def load(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder)


def update(folder: Path, module: str = MODULE) -> torch.Tensor:
    """What an adapter adds to a weight, by PEFT."""
    base = load(folder.parent / "base")
    before = base.get_parameter(f"{module}.weight").detach().double().clone()
    after = PeftModel.from_pretrained(base, folder).merge_and_unload().get_parameter(f"{module}.weight")
    return after.detach().double() - before


def weighted(base: Path, adapters: list[Path], weights: list[float]) -> Any:
    model = PeftModel.from_pretrained(load(base), adapters[0], adapter_name="a0")
    for number, folder in enumerate(adapters[1:], 1):
        model.load_adapter(folder, adapter_name=f"a{number}")
    names = [f"a{number}" for number in range(len(adapters))]
    model.base_model.set_adapter(names)
    for module in model.modules():
        for name, weight in zip(names, weights, strict=True):
            if isinstance(module, LoraLayer) and name in module.scaling:
                module.scaling[name] *= weight
    return model


@pytest.mark.parametrize("how", ["linear", "concatenation"])
def test_a_weighted_sum_folds_as_peft_runs_both(how: Any, three: list[Path], tmp_path: Path) -> None:
    base, *adapters = three
    names = [str(one) for one in adapters]
    merge_adapters(None, names, [0.7, -0.3], how=how, out=tmp_path / "out", verify=False)
    expected = logits(weighted(base, adapters, [0.7, -0.3]))
    torch.testing.assert_close(logits(load(tmp_path / "out")), expected, rtol=1e-4, atol=2e-5)


def test_concatenated_ranks_add_up(three: list[Path], tmp_path: Path) -> None:
    base, *adapters = three
    names = [str(one) for one in adapters]
    result = merge_adapters(None, names, [0.7, 0.3], how="concatenation", as_adapter=True, out=tmp_path / "out")
    tensors = load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert result["rank"] == 7
    assert tensors[f"base_model.model.{MODULE}.lora_A.weight"].shape == (7, 32)
    assert tensors["base_model.model.model.layers.0.mlp.up_proj.lora_A.weight"].shape == (4, 32)
    together = PeftModel.from_pretrained(load(base), tmp_path / "out")
    expected = logits(weighted(base, adapters, [0.7, 0.3]))
    torch.testing.assert_close(logits(together), expected, rtol=1e-4, atol=2e-5)
    # What was written is an adapter like any other.
    merge_adapters(None, [str(tmp_path / "out")], out=tmp_path / "folded", verify=False)
    torch.testing.assert_close(logits(load(tmp_path / "folded")), expected, rtol=1e-4, atol=2e-5)


def nearest(matrix: torch.Tensor, rank: int) -> torch.Tensor:
    u, s, vh = torch.linalg.svd(matrix.double(), full_matrices=False)
    return (u[:, :rank] * s[:rank]) @ vh[:rank]


@pytest.mark.parametrize("as_adapter", [False, True])
def test_svd_is_the_nearest_update_of_its_rank(as_adapter: bool, three: list[Path], tmp_path: Path) -> None:
    base, *adapters = three
    out = tmp_path / "out"
    names = [str(one) for one in adapters]
    merge_adapters(None, names, [0.7, 0.3], how="svd", rank=2, as_adapter=as_adapter, out=out, verify=False)
    expected = nearest(0.7 * update(adapters[0]) + 0.3 * update(adapters[1]), 2)
    before = load(base).get_parameter(f"{MODULE}.weight").detach().double()
    found = update(out) if as_adapter else load(out).get_parameter(f"{MODULE}.weight").detach().double() - before
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def elected(updates: list[torch.Tensor], weights: list[float], density: float) -> torch.Tensor:
    """TIES, element by element, as Yadav et al. 2023 write it down in algorithm 1."""
    trimmed = []
    for one in updates:
        keep = int(density * one.numel())
        bound = one.abs().flatten().sort(descending=True).values[keep - 1]
        trimmed.append(torch.where(one.abs() >= bound, one, 0.0))
    result = torch.zeros_like(updates[0])
    for place in range(result.numel()):
        values = [weight * float(one.flatten()[place]) for one, weight in zip(trimmed, weights, strict=True)]
        sign = 1.0 if sum(values) >= 0 else -1.0
        agreeing = [(value, weight) for value, weight in zip(values, weights, strict=True) if value * sign > 0]
        if agreeing:
            result.flatten()[place] = sum(value for value, _ in agreeing) / sum(weight for _, weight in agreeing)
    return result


def test_ties_is_that_of_whole_models(three: list[Path], tmp_path: Path) -> None:
    base, *adapters = three
    names = [str(one) for one in adapters]
    result = merge_adapters(None, names, [0.7, 0.3], how="ties", density=0.5, out=tmp_path / "out", verify=False)
    expected = elected([update(one) for one in adapters], [0.7, 0.3], 0.5)
    before = load(base).get_parameter(f"{MODULE}.weight").detach().double()
    found = load(tmp_path / "out").get_parameter(f"{MODULE}.weight").detach().double() - before
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)
    assert result["how"] == "ties"


def test_dare_drops_by_its_seed_and_keeps_the_expectation(three: list[Path], tmp_path: Path) -> None:
    base, *adapters = three
    names = [str(one) for one in adapters]
    found = []
    for number, seed in enumerate((0, 0, 1)):
        out = tmp_path / f"out{number}"
        merge_adapters(None, names, [1.0, 1.0], how="dare_linear", density=0.5, seed=seed, out=out, verify=False)
        found.append(load(out).get_parameter(f"{MODULE}.weight").detach().double())
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    before = load(base).get_parameter(f"{MODULE}.weight").detach().double()
    updates = [update(one) for one in adapters]
    # Each of the two is there doubled, or not at all.
    choices = torch.stack([2 * a * updates[0] + 2 * b * updates[1] for a in (0, 1) for b in (0, 1)])
    assert (choices - (found[0] - before)).abs().amin(0).max() < 1e-5


def test_one_adapter_can_be_weaker(three: list[Path], tmp_path: Path) -> None:
    base, one, _ = three
    merge_adapters(None, [str(one)], [0.5], out=tmp_path / "out", verify=False)
    expected = logits(weighted(base, [one], [0.5]))
    torch.testing.assert_close(logits(load(tmp_path / "out")), expected, rtol=1e-4, atol=2e-5)


def test_adapters_of_different_bases_have_to_be_told_which(three: list[Path], tmp_path: Path) -> None:
    _, one, _ = three
    other = adapter(llama(tmp_path / "other", seed=5), tmp_path / "three", seed=3, r=2, target_modules=["q_proj"])
    with pytest.raises(RecipeError, match="different bases"):
        merge_adapters(None, [str(one), str(other)], out=tmp_path / "out", verify=False)


def test_what_is_more_than_low_rank_cannot_become_part_of_an_adapter(three: list[Path], tmp_path: Path) -> None:
    base, one, _ = three
    dora = adapter(base, tmp_path / "dora", seed=3, r=2, target_modules=["q_proj"], use_dora=True)
    with pytest.raises(RecipeError, match="DoRA's magnitudes"):
        merge_adapters(None, [str(one), str(dora)], as_adapter=True, out=tmp_path / "out")
    # Folded they can be put together: what each adds to the base is known there.
    merge_adapters(None, [str(one), str(dora)], out=tmp_path / "out", verify=False)
    before = load(base).get_parameter(f"{MODULE}.weight").detach().double()
    found = load(tmp_path / "out").get_parameter(f"{MODULE}.weight").detach().double() - before
    torch.testing.assert_close(found, update(one) + update(dora), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(20, 31), (31, 20), (20, 20)])
def test_nearest_matrices_of_lower_rank(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    matrix = torch.randn(shape)
    a, b = low_rank_approximation(matrix, rank=5)
    torch.testing.assert_close((b @ a).double(), nearest(matrix, 5), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(singular_values(matrix)[0], torch.linalg.svdvals(matrix.double()))
    a, b = torch.randn(7, shape[1]), torch.randn(shape[0], 7)
    low_a, low_b = recompress(a, b, rank=3)
    assert low_a.shape == (3, shape[1])
    torch.testing.assert_close((low_b @ low_a).double(), nearest(b @ a, 3), rtol=1e-4, atol=1e-4)


def test_a_matrix_of_less_than_the_rank_is_given_back() -> None:
    torch.manual_seed(0)
    matrix = torch.randn(20, 2) @ torch.randn(2, 15)
    a, b = low_rank_approximation(matrix, rank=6)
    torch.testing.assert_close(b @ a, matrix, rtol=1e-4, atol=1e-4)
    assert a.isfinite().all()
    assert b.isfinite().all()


def test_rank_of_energy_by_hand() -> None:
    values = torch.tensor([3.0, 2.0, 1.0, 0.0])
    # Squares 9, 4, 1 of 14.
    assert rank_of_energy(values, energy=9 / 14) == 1
    assert rank_of_energy(values, energy=0.65) == 2
    assert rank_of_energy(values, energy=0.95) == 3
    assert rank_of_energy(torch.zeros(3), energy=0.9) == 0


def tuned(base: Path, folder: Path, *, rank: int | None = None, only_linear: bool = False) -> Path:
    torch.manual_seed(9)
    model = load(base)
    for name, parameter in model.named_parameters():
        is_linear = parameter.ndim == 2 and "embed" not in name and "head" not in name and "wte" not in name
        is_linear = is_linear and "wpe" not in name
        if is_linear and rank is not None:
            parameter.data.add_(0.2 * torch.randn(parameter.shape[0], rank) @ torch.randn(rank, parameter.shape[1]))
        elif not only_linear or is_linear:
            parameter.data.add_(0.05 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("tied", [False, True])
def test_what_is_of_low_rank_is_taken_out_exactly(tied: bool, tmp_path: Path) -> None:
    base = llama(tmp_path / "base", tie_word_embeddings=tied, attention_bias=True)
    after = tuned(base, tmp_path / "after", rank=3)
    result = extract_adapter(str(base), str(after), out=tmp_path / "out", rank=3)
    assert result["energy"] == pytest.approx(1.0, abs=1e-9)
    assert set(result["whole_modules"]) >= {"model.norm", "model.embed_tokens", "model.layers.1.input_layernorm"}
    expected = logits(load(after))
    adapted = PeftModel.from_pretrained(load(base), tmp_path / "out")
    torch.testing.assert_close(logits(adapted), expected, rtol=1e-4, atol=1e-4)
    merge_adapters(None, [str(tmp_path / "out")], out=tmp_path / "again", verify=False)
    again = load(tmp_path / "again")
    torch.testing.assert_close(logits(again), expected, rtol=1e-4, atol=1e-4)
    assert (again.lm_head.weight is again.model.embed_tokens.weight) == tied


def test_weights_stored_the_other_way_round_are_taken_out_too(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = GPT2Config(n_embd=32, n_layer=2, n_head=2, n_positions=64, vocab_size=64, bos_token_id=1, eos_token_id=2)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "base")
    after = tuned(tmp_path / "base", tmp_path / "after", rank=2)
    extract_adapter(str(tmp_path / "base"), str(after), out=tmp_path / "out", rank=2)
    adapted = PeftModel.from_pretrained(load(tmp_path / "base"), tmp_path / "out")
    torch.testing.assert_close(logits(adapted), logits(load(after)), rtol=1e-4, atol=1e-4)


def test_energy_chooses_each_rank(tmp_path: Path) -> None:
    base = llama(tmp_path / "base")
    after = tuned(base, tmp_path / "after", only_linear=True)
    result = extract_adapter(str(base), str(after), out=tmp_path / "out", energy=0.6)
    assert 0.6 <= result["energy"] < 0.7
    assert result["whole_modules"] == []
    # As many as the singular values of the difference say, for each matrix by itself.
    difference = load(after).get_parameter(f"{MODULE}.weight") - load(base).get_parameter(f"{MODULE}.weight")
    shares = torch.linalg.svdvals(difference.detach().double()).square().cumsum(0)
    expected = int((shares / shares[-1] < 0.6).sum()) + 1
    tensors = load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert tensors[f"base_model.model.{MODULE}.lora_A.weight"].shape[0] == expected
    torch.testing.assert_close(update(tmp_path / "out"), nearest(difference.detach(), expected), rtol=1e-3, atol=1e-6)
    assert result["smallest_rank"] < result["largest_rank"]


def test_models_that_do_not_go_together_have_no_adapter(tmp_path: Path) -> None:
    base = llama(tmp_path / "base")
    wide = llama(tmp_path / "wide", attention_bias=True)
    other = llama(tmp_path / "other", head_dim=8)
    for tuned_model, said in ((wide, "different architectures"), (other, "has shape"), (base, "the same weights")):
        with pytest.raises(ModelError, match=said):
            extract_adapter(str(base), str(tuned_model), out=tmp_path / "out", rank=2)
    for options in ({}, {"rank": 2, "energy": 0.5}, {"rank": 0}, {"energy": 1.5}):
        with pytest.raises(RecipeError):
            extract_adapter(str(base), str(wide), out=tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()
