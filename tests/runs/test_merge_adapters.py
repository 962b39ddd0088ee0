"""`ftk merge` of an adapter: proven against base and adapter, complete or not there at all."""

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import ftk.merging.adapters.changes
import ftk.merging.adapters.fold
import ftk.runs.merging.check
from ftk.core.errors import FtkError, ModelError, RecipeError, RunError
from ftk.runs.merging.adapters import merge_adapters

pytestmark = [pytest.mark.filterwarnings("ignore")]
MODULES = ["q_proj", "v_proj", "up_proj"]


def make_adapter(base: Path, folder: Path, *, seed: int = 0, **options: Any) -> Path:
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(base)
    adapted = get_peft_model(model, LoraConfig(**{"r": 4, "lora_alpha": 6, "target_modules": MODULES, **options}))
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            parameter.data.copy_(0.1 * torch.randn_like(parameter))
    adapted.save_pretrained(folder, save_embedding_layers=False)
    return folder


@pytest.fixture
def adapter(model_folder: Path, tmp_path: Path) -> Path:
    return make_adapter(model_folder, tmp_path / "adapter")


def left_over(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".") or path.name == "out"]


def test_the_merged_model_is_proven_and_complete(model_folder: Path, adapter: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    tokenizer.chat_template = "{{ messages[0].content }} trained"
    tokenizer.save_pretrained(adapter)
    (adapter / "generation_config.json").write_text('{"eos_token_id": [2, 7], "max_new_tokens": 5}')
    result = merge_adapters(None, [str(adapter)], out=tmp_path / "out")
    proof = result["proof"]
    assert proof["judged"]
    assert proof["holds"]
    assert proof["largest_difference"] < 1e-4
    assert proof["num_other_greedy_tokens"] == 0
    assert proof["merged_perplexity"] == pytest.approx(proof["reference_perplexity"], rel=1e-5)
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert merged.lm_head.weight is merged.model.embed_tokens.weight
    assert merged.generation_config.eos_token_id == [2, 7]
    assert AutoTokenizer.from_pretrained(tmp_path / "out").chat_template == tokenizer.chat_template
    card = (tmp_path / "out" / "README.md").read_text()
    for file in (model_folder / "model.safetensors", adapter / "adapter_model.safetensors"):
        assert hashlib.sha256(file.read_bytes()).hexdigest() in card
    assert result["num_changed"] == 6


def test_a_run_folder_is_an_adapter(model_folder: Path, tmp_path: Path) -> None:
    make_adapter(model_folder, tmp_path / "run" / "model")
    assert merge_adapters(None, [str(tmp_path / "run")], out=tmp_path / "out")["proof"]["holds"]


def test_a_proof_that_fails_leaves_nothing(adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As by a fold that forgets the scaling."""
    honest = ftk.merging.adapters.changes.add_low_rank

    def forgetful(weight: torch.Tensor, a: torch.Tensor, b: torch.Tensor, *, scaling: float) -> torch.Tensor:
        return honest(weight, a, b, scaling=1.0)

    monkeypatch.setattr(ftk.merging.adapters.changes, "add_low_rank", forgetful)
    with pytest.raises(RunError, match="logits differ by up to") as error:
        merge_adapters(None, [str(adapter)], out=tmp_path / "out")
    assert error.value.exit_code == 4
    assert left_over(tmp_path) == []
    merge_adapters(None, [str(adapter)], out=tmp_path / "out", verify=False)


def test_a_head_that_came_untied_fails_the_proof(
    adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = ftk.runs.merging.check.listen
    heard: list[bool] = []

    def untied(*arguments: Any) -> Any:
        said = honest(*arguments)
        heard.append(said.tied)
        # The reference comes first, the merged model after it.
        return said if len(heard) == 1 else replace(said, tied=False)

    monkeypatch.setattr(ftk.runs.merging.check, "listen", untied)
    with pytest.raises(RunError, match="no longer tied"):
        merge_adapters(None, [str(adapter)], out=tmp_path / "out")
    assert heard == [True, True]
    assert left_over(tmp_path) == []


def test_leftovers_of_a_killed_merge_go(adapter: Path, tmp_path: Path) -> None:
    doomed = tmp_path / ".out.ftk-tmp-999999999"
    doomed.mkdir()
    (doomed / "model.safetensors").write_bytes(b"half")
    merge_adapters(None, [str(adapter)], out=tmp_path / "out", verify=False)
    assert left_over(tmp_path) == ["out"]


@pytest.mark.parametrize(("dtype", "largest"), [(torch.bfloat16, 0.1), (torch.float16, 0.02)])
def test_sixteen_bits_are_proven_too(dtype: torch.dtype, largest: float, model_folder: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=dtype)
    model.save_pretrained(tmp_path / "base")
    AutoTokenizer.from_pretrained(model_folder).save_pretrained(tmp_path / "base")
    make_adapter(tmp_path / "base", tmp_path / "adapter")
    result = merge_adapters(None, [str(tmp_path / "adapter")], out=tmp_path / "out")
    assert 0 < result["proof"]["largest_difference"] < largest * result["proof"]["spread"]
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto").dtype == dtype


def _tamper(adapter: Path, **changes: Any) -> None:
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps({**config, **changes}))


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
    "prompt": (lambda folder: _tamper(folder, peft_type="PROMPT_TUNING"), "learned vectors before the prompt"),
    "bottleneck": (lambda folder: _tamper(folder, peft_type="BOTTLENECK"), "a nonlinearity that no weight"),
    "other kind": (lambda folder: _tamper(folder, peft_type="OFT"), "PEFT's own merge_and_unload may"),
    "activated": (lambda folder: _tamper(folder, alora_invocation_tokens=[3, 4]), "only after certain tokens"),
    "pissa": (lambda folder: _tamper(folder, init_lora_weights="pissa_niter_4"), "takes a part of the base's weights"),
    "no base": (lambda folder: _tamper(folder, base_model_name_or_path=None), "does not say its base"),
    "gone base": (lambda folder: _tamper(folder, base_model_name_or_path="/nowhere/at/all"), "/nowhere/at/all"),
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
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 0, 10))  # type: ignore[attr-defined]
    with pytest.raises(RecipeError, match="GB free"):
        merge_adapters(None, [str(adapter)], out=tmp_path / "deep" / "out", verify=False)
    assert not (tmp_path / "deep").exists()


def test_a_base_can_be_named(model_folder: Path, adapter: Path, tmp_path: Path) -> None:
    _tamper(adapter, base_model_name_or_path="/nowhere/at/all")
    result = merge_adapters(str(model_folder), [str(adapter)], out=tmp_path / "out")
    assert result["proof"]["holds"]
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    reference = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model_folder), adapter)
    row = torch.arange(20)[None]
    with torch.no_grad():
        torch.testing.assert_close(merged(row).logits, reference.eval()(row).logits, rtol=1e-4, atol=1e-5)


def test_a_learned_prompt_says_why(model_folder: Path, tmp_path: Path) -> None:
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(model_folder),
        PromptTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM"),
    )
    model.save_pretrained(tmp_path / "prompt")
    with pytest.raises(ModelError, match="Keep it beside its base"):
        merge_adapters(None, [str(tmp_path / "prompt")], out=tmp_path / "out")


def test_a_base_in_few_bits_can_be_told_where_no_run_tells(model_folder: Path, adapter: Path, tmp_path: Path) -> None:
    plain = merge_adapters(None, [str(adapter)], out=tmp_path / "plain", verify=False)
    told = merge_adapters(None, [str(adapter)], quantization="nf4", out=tmp_path / "told", verify=False)
    assert (plain["base_precision"], told["base_precision"]) == ("original", "dequantized")
    for options in ({"quantization": "nf5"}, {"base_precision": "orignal"}):
        with pytest.raises(RecipeError, match="Did you mean"):
            merge_adapters(None, [str(adapter)], out=tmp_path / "out", **options)  # type: ignore[arg-type]


def test_without_a_tokenizer_there_is_no_comparison(model_folder: Path, adapter: Path, tmp_path: Path) -> None:
    base = shutil.copytree(model_folder, tmp_path / "base", ignore=shutil.ignore_patterns("tokenizer*"))
    with pytest.raises(ModelError, match=r"neither the base .*/base nor an adapter has a tokenizer .* --no-verify"):
        merge_adapters(str(base), [str(adapter)], out=tmp_path / "out")
    assert left_over(tmp_path) == []
    merge_adapters(str(base), [str(adapter)], out=tmp_path / "out", verify=False)


def test_files_are_of_the_asked_size(adapter: Path, tmp_path: Path) -> None:
    merge_adapters(None, [str(adapter)], out=tmp_path / "out", shard_bytes=20_000)
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) == 2


def test_a_weighted_sum_is_proven_and_other_ways_are_only_measured(model_folder: Path, tmp_path: Path) -> None:
    pair = [str(make_adapter(model_folder, tmp_path / f"adapter{seed}", seed=seed)) for seed in (1, 2)]
    summed = merge_adapters(None, pair, [0.7, 0.3], out=tmp_path / "sum")["proof"]
    assert summed["judged"]
    assert summed["holds"]
    assert summed["largest_difference"] < 1e-4
    thinned = merge_adapters(None, pair, [0.7, 0.3], how="ties", density=0.3, out=tmp_path / "ties")["proof"]
    assert not thinned["judged"]
    assert thinned["largest_difference"] > summed["largest_difference"]
    assert "not the sum" in thinned["why_not"]


def test_the_command(model_folder: Path, tmp_path: Path, ftk_json: Any) -> None:
    make_adapter(model_folder, tmp_path / "run" / "model")
    text = tmp_path / "text.txt"
    text.write_text("How many are three and four? Seven.")
    result = ftk_json("merge", tmp_path / "run", "--out", tmp_path / "out", "--text", text)
    assert result["exit_code"] == 0
    assert result["proof"]["holds"]
    assert "logits differ by" in result["stderr"]
    evaluated = ftk_json("extract", model_folder, tmp_path / "out", "--out", tmp_path / "again", "--rank", 4)
    assert evaluated["exit_code"] == 0
    assert evaluated["energy"] == pytest.approx(1.0, abs=1e-6)
    card = (tmp_path / "again" / "README.md").read_text()
    assert f"an adapter for `{model_folder}`, taken out of it and `{tmp_path / 'out'}`" in card
    refused = ftk_json("merge", tmp_path / "run", "--out", tmp_path / "out")
    assert refused["exit_code"] == 2
    assert "exists already" in refused["error"]["message"]
    refused = ftk_json("merge", tmp_path / "run", "--out", tmp_path / "two", "--text", tmp_path / "none.txt")
    assert refused["exit_code"] == 2


def test_a_tensor_is_folded_without_the_others(
    model_folder: Path, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No two weights of the base are held at once."""
    import gc
    import weakref

    alive: list[weakref.ref[torch.Tensor]] = []
    honest = ftk.merging.adapters.fold.apply_all

    def watched(*arguments: Any) -> torch.Tensor:
        gc.collect()
        assert sum(one() is not None for one in alive) <= 1
        changed = honest(*arguments)
        alive.append(weakref.ref(changed))
        return changed

    monkeypatch.setattr(ftk.merging.adapters.fold, "apply_all", watched)
    merge_adapters(None, [str(adapter)], out=tmp_path / "out", verify=False)
    assert len(alive) == 6
