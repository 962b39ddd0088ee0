"""Adapters of convolutions folded from files into files, against PEFT's own merge_and_unload in float64."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from adapter_bases import shaken
from peft import IA3Config, LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn

from ftk.core.errors import ModelError
from ftk.merging.adapters.combine import Combination
from ftk.runs.merging.adapters import merge_adapters

pytestmark = [pytest.mark.filterwarnings("ignore")]
PLAIN = ["long", "wide", "point", "deep"]


class Net(nn.Module):
    """Convolutions of each kind; some with as many inputs as outputs, where shapes alone do not tell which is which."""

    def __init__(self) -> None:
        super().__init__()
        self.config = {"model_type": "net"}
        self.long = nn.Conv1d(6, 6, 3)
        self.wide = nn.Conv2d(6, 8, (3, 2))
        self.point = nn.Conv2d(8, 8, 1, bias=False)
        self.deep = nn.Conv3d(4, 6, 2)
        self.grouped = nn.Conv2d(8, 12, 3, groups=4)

    def prepare_inputs_for_generation(self) -> None:
        """PEFT asks for it in a causal language model, which it takes this for."""


def saved(config: Any, folder: Path) -> tuple[Path, Path]:
    torch.manual_seed(0)
    net = Net()
    (folder / "base").mkdir()
    save_file(net.state_dict(), folder / "base" / "model.safetensors", metadata={"format": "pt"})
    (folder / "base" / "config.json").write_text(json.dumps({"model_type": "net", "vocab_size": 999}))
    adapted = get_peft_model(net, config)
    shaken(adapted)
    adapted.save_pretrained(folder / "adapter")
    return folder / "base", folder / "adapter"


def by_peft(base: Path, adapter: Path) -> dict[str, torch.Tensor]:
    net = Net()
    net.load_state_dict(load_file(base / "model.safetensors"))
    return PeftModel.from_pretrained(net, adapter).double().merge_and_unload().state_dict()


CASES: dict[str, Any] = {
    "lora": LoraConfig(r=4, lora_alpha=7, target_modules=PLAIN),
    "rslora": LoraConfig(r=4, lora_alpha=7, target_modules=PLAIN, use_rslora=True),
    "patterns": LoraConfig(r=4, target_modules=PLAIN, rank_pattern={"wide": 2}, alpha_pattern={"long": 3}),
    "dora": LoraConfig(r=4, target_modules=PLAIN, use_dora=True),
    "bias all": LoraConfig(r=4, target_modules=PLAIN, bias="all"),
    "bias lora_only": LoraConfig(r=4, target_modules=["wide"], bias="lora_only"),
    "lora_bias": LoraConfig(r=4, target_modules=["long", "wide", "deep"], lora_bias=True),
    "modules_to_save": LoraConfig(r=4, target_modules=["wide"], modules_to_save=["long"]),
    "ia3 outputs": IA3Config(target_modules=["wide", "point", "deep", "grouped"], feedforward_modules=[]),
    "ia3 inputs": IA3Config(
        target_modules=["wide", "point", "deep", "grouped"], feedforward_modules=["point", "deep", "grouped"]
    ),
    "ia3 inputs by expression": IA3Config(target_modules=["wide", "point"], feedforward_modules="po.*"),
}


@pytest.mark.parametrize("name", CASES)
def test_convolutions_fold_into_what_peft_merges(name: str, tmp_path: Path) -> None:
    base, adapter = saved(CASES[name], tmp_path)
    result = merge_adapters(str(base), [str(adapter)], out=tmp_path / "out", verify=False)
    expected, before = by_peft(base, adapter), load_file(base / "model.safetensors")
    found = load_file(tmp_path / "out" / "model.safetensors")
    assert found.keys() == expected.keys()
    for key, tensor in found.items():
        torch.testing.assert_close(tensor.double(), expected[key], rtol=1e-5, atol=1e-6)
    changed = sum(not torch.equal(found[key], before[key]) for key in found)
    assert changed == result["num_changed"] > 0


def test_lora_of_a_convolution_in_groups_says_why_not(tmp_path: Path) -> None:
    """PEFT refuses it too: its update goes across groups, whose weights the base does not have."""
    base, adapter = saved(LoraConfig(r=4, target_modules=["grouped"]), tmp_path)
    with pytest.raises(ModelError, match=r"grouped\.weight, a convolution in 4 groups.*Keep it beside its base"):
        merge_adapters(str(base), [str(adapter)], out=tmp_path / "out", verify=False)
    assert not (tmp_path / "out").exists()


def two(folder: Path) -> list[str]:
    """Adapters of different rank and scaling for one base."""
    base, first = saved(LoraConfig(r=4, lora_alpha=7, target_modules=PLAIN), folder)
    net = Net()
    net.load_state_dict(load_file(base / "model.safetensors"))
    adapted = get_peft_model(net, LoraConfig(r=3, lora_alpha=2, target_modules=["wide", "deep"]))
    shaken(adapted)
    adapted.save_pretrained(folder / "second")
    return [str(first), str(folder / "second")]


def weighted_sum(base: Path, adapters: list[str], weights: list[float]) -> dict[str, torch.Tensor]:
    before = {name: tensor.double() for name, tensor in load_file(base / "model.safetensors").items()}
    merged = [by_peft(base, Path(adapter)) for adapter in adapters]
    parts = [zip(weights, [one[name] - before[name] for one in merged], strict=True) for name in before]
    return {name: sum(share * update for share, update in part) for name, part in zip(before, parts, strict=True)}


def nearest(update: torch.Tensor, rank: int) -> torch.Tensor:
    if update.ndim < 2:
        return update
    u, s, v = torch.linalg.svd(update.flatten(1), full_matrices=False)
    return ((u[:, :rank] * s[:rank]) @ v[:rank]).view(update.shape)


@pytest.mark.parametrize("as_adapter", [False, True])
@pytest.mark.parametrize("rank", [None, 2])
def test_several_adapters_of_convolutions(rank: int | None, as_adapter: bool, tmp_path: Path) -> None:
    adapters, weights, out = two(tmp_path), [0.7, -0.4], tmp_path / "out"
    base = tmp_path / "base"
    how: Any = "concatenation" if rank is None else "svd"
    merge_adapters(str(base), adapters, weights, how=how, rank=rank, out=out, verify=False, as_adapter=as_adapter)
    found = by_peft(base, out) if as_adapter else load_file(out / "model.safetensors")
    before = load_file(base / "model.safetensors")
    for name, update in weighted_sum(base, adapters, weights).items():
        expected = before[name].double() + (nearest(update, rank) if rank is not None else update)
        torch.testing.assert_close(found[name].double(), expected, rtol=1e-5, atol=1e-5)


def test_svd_of_a_stack_of_experts_is_of_each() -> None:
    updates = [torch.randn(3, 6, 5), torch.randn(3, 6, 5)]
    found = Combination("svd", rank=2)("experts", updates, [0.5, 2.0])
    for expert in range(3):
        total = 0.5 * updates[0][expert] + 2.0 * updates[1][expert]
        torch.testing.assert_close(found[expert].double(), nearest(total.double(), 2), rtol=1e-5, atol=1e-5)
