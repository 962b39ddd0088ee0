"""`ftk merge` of an adapter: what cannot be folded, and numbers that have no meaning."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from adapter_files import left_over, make_adapter, tamper
from peft import PromptTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from ftk.core.errors import FtkError, ModelError, RecipeError
from ftk.runs.merging.adapters import merge_adapters

pytestmark = [pytest.mark.filterwarnings("ignore")]


def _tensors(adapter: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = load_file(adapter / "adapter_model.safetensors")
    change(tensors)
    save_file(tensors, adapter / "adapter_model.safetensors")


NAME = "base_model.model.model.layers.0.self_attn.q_proj"


def _nan(tensors: dict[str, torch.Tensor]) -> None:
    tensors[f"{NAME}.lora_A.weight"][1, 2] = float("nan")


def _without_b(tensors: dict[str, torch.Tensor]) -> None:
    del tensors[f"{NAME}.lora_B.weight"]


def _wide(tensors: dict[str, torch.Tensor]) -> None:
    tensors[f"{NAME}.lora_A.weight"] = torch.ones(4, 17)


def _elsewhere(tensors: dict[str, torch.Tensor]) -> None:
    for part in ("lora_A", "lora_B"):
        tensors[f"base_model.model.model.layers.9.self_attn.q_proj.{part}.weight"] = torch.ones(4, 4)


def _unknown(tensors: dict[str, torch.Tensor]) -> None:
    tensors[f"{NAME}.lora_surprise.weight"] = torch.ones(4)


def _cut(folder: Path) -> None:
    file = folder / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-20])


def _pickle(folder: Path) -> None:
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")


BROKEN: dict[str, tuple[Callable[[Path], None], str]] = {
    "prompt": (lambda folder: tamper(folder, peft_type="PROMPT_TUNING"), "learned vectors before the prompt"),
    "bottleneck": (lambda folder: tamper(folder, peft_type="BOTTLENECK"), "a nonlinearity that no weight"),
    "other kind": (lambda folder: tamper(folder, peft_type="OFT"), "PEFT's own merge_and_unload may"),
    "activated": (lambda folder: tamper(folder, alora_invocation_tokens=[3, 4]), "only after certain tokens"),
    "pissa": (lambda folder: tamper(folder, init_lora_weights="pissa_niter_4"), "takes a part of the base's weights"),
    "no base": (lambda folder: tamper(folder, base_model_name_or_path=None), "does not say its base"),
    "gone base": (lambda folder: tamper(folder, base_model_name_or_path="/nowhere/at/all"), "/nowhere/at/all"),
    "nan": (lambda folder: _tensors(folder, _nan), "NaN or infinite"),
    "half a pair": (lambda folder: _tensors(folder, _without_b), "lora_B"),
    "another width": (lambda folder: _tensors(folder, _wide), "does not fit"),
    "another depth": (lambda folder: _tensors(folder, _elsewhere), "layers.9.self_attn.q_proj.weight"),
    "unknown": (lambda folder: _tensors(folder, _unknown), "lora_surprise"),
    "cut short": (_cut, "not copied or downloaded to its end"),
    "pickle": (_pickle, "pickle"),
    "no object": (lambda folder: (folder / "adapter_config.json").write_text("[]") and None, "expected a JSON object"),
    "not json": (lambda folder: (folder / "adapter_config.json").write_text("{") and None, "cannot be read as JSON"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_cannot_be_folded_says_why(name: str, adapter: Path, tmp_path: Path) -> None:
    spoil, said = BROKEN[name]
    spoil(adapter)
    with pytest.raises(FtkError, match=said) as error:
        merge_adapters(None, [str(adapter)], out=tmp_path / "out", verify=False)
    assert error.value.exit_code == 2
    assert left_over(tmp_path) == []


def test_a_whole_model_is_no_adapter(model_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"a whole model, not an adapter: .* partial tuning\) is used as it is"):
        merge_adapters(None, [str(model_folder)], out=tmp_path / "out")


def test_a_broken_base_is_named_even_where_no_adapter_changes_it(
    model_folder: Path, adapter: Path, tmp_path: Path
) -> None:
    base = shutil.copytree(model_folder, tmp_path / "base")
    tensors = load_file(base / "model.safetensors")
    tensors["model.norm.weight"][2] = float("inf")
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"model\.norm\.weight in .* holds 1 values that are NaN or infinite"):
        merge_adapters(str(base), [str(adapter)], out=tmp_path / "out", verify=False)
    assert left_over(tmp_path) == []


def test_a_base_that_lacks_a_shard_is_refused(model_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(model_folder, tmp_path / "base")
    AutoModelForCausalLM.from_pretrained(model_folder).save_pretrained(tmp_path / "base", max_shard_size="20KB")
    (tmp_path / "base" / "model.safetensors").unlink(missing_ok=True)
    make_adapter(tmp_path / "base", tmp_path / "adapter")
    missing = sorted((tmp_path / "base").glob("model-*.safetensors"))[1]
    missing.unlink()
    with pytest.raises(ModelError, match=missing.name):
        merge_adapters(None, [str(tmp_path / "adapter")], out=tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"weights": [1.0, 2.0]}, "as many weights as adapters, 1, found 2"),
        ({"weights": [0.0]}, "not all of them 0"),
        ({"weights": [float("nan")]}, "must be numbers"),
        ({"how": "svd"}, "needs the rank"),
        ({"how": "sdv"}, "There is linear"),
        ({"rank": 4}, "keeps the sum of the ranks"),
        ({"how": "svd", "rank": 0}, "1 or more"),
        ({"density": 0.5}, "density is the share"),
        ({"how": "ties", "density": 1.5}, "at most 1"),
        ({"how": "ties", "rank": 4}, "no rank"),
    ],
)
def test_wrong_numbers_are_told(options: dict[str, Any], said: str, adapter: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=said):
        merge_adapters(None, [str(adapter)], out=tmp_path / "out", **options)


def test_nothing_is_overwritten(model_folder: Path, adapter: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    for out, said in (
        (tmp_path / "there", "exists already"),
        (adapter / "out", "lies within it"),
        (adapter, "is the adapter"),
    ):
        with pytest.raises(RecipeError, match=said):
            merge_adapters(None, [str(adapter)], out=out, verify=False)
    base = shutil.copytree(model_folder, tmp_path / "base")
    with pytest.raises(RecipeError, match=r"the base .* lies within it"):
        merge_adapters(str(base), [str(adapter)], out=base / "out", verify=False)


def test_a_full_disk_is_told_before_anything_is_written(
    adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 0, 10))
    with pytest.raises(RecipeError, match=r"needs \d+ kB, and its disk has 10 B free"):
        merge_adapters(None, [str(adapter)], out=tmp_path / "deep" / "out", verify=False)
    assert not (tmp_path / "deep").exists()


def test_a_learned_prompt_says_why(model_folder: Path, tmp_path: Path) -> None:
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(model_folder),
        PromptTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM"),
    )
    model.save_pretrained(tmp_path / "prompt")
    with pytest.raises(ModelError, match="Keep it beside its base"):
        merge_adapters(None, [str(tmp_path / "prompt")], out=tmp_path / "out")
