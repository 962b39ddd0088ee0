"""`ftk merge` of an adapter: proven against base and adapter, complete or not there at all."""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from adapter_files import left_over, make_adapter, tamper
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

import ftk.merging.adapters.changes
import ftk.merging.adapters.fold
import ftk.runs.merging.check
from ftk.core.errors import ModelError, RecipeError, RunError
from ftk.runs.merging.adapters import merge_adapters

pytestmark = [pytest.mark.filterwarnings("ignore")]


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


def test_a_base_can_be_named(model_folder: Path, adapter: Path, tmp_path: Path) -> None:
    tamper(adapter, base_model_name_or_path="/nowhere/at/all")
    result = merge_adapters(str(model_folder), [str(adapter)], out=tmp_path / "out")
    assert result["proof"]["holds"]
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    reference = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model_folder), adapter)
    row = torch.arange(20)[None]
    with torch.no_grad():
        torch.testing.assert_close(merged(row).logits, reference.eval()(row).logits, rtol=1e-4, atol=1e-5)


def test_a_base_in_few_bits_can_be_told_where_no_run_tells(model_folder: Path, adapter: Path, tmp_path: Path) -> None:
    plain = merge_adapters(None, [str(adapter)], out=tmp_path / "plain", verify=False)
    told = merge_adapters(None, [str(adapter)], quantization="nf4", out=tmp_path / "told", verify=False)
    assert (plain["base_precision"], told["base_precision"]) == ("original", "dequantized")
    for options in ({"quantization": "nf5"}, {"base_precision": "orignal"}):
        with pytest.raises(RecipeError, match="Did you mean"):
            merge_adapters(None, [str(adapter)], out=tmp_path / "out", **options)


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
