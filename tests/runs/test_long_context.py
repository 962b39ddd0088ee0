"""A run that reads further than its base: trained, measured, asked, evaluated, merged and resumed at its new length."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from run_ftk import Ftk
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel

from ftk.core.errors import RunError
from ftk.core.positions import max_positions
from ftk.evaluation.passkey import Passkey
from ftk.models.as_trained import positions_as_trained
from ftk.models.load import load_config, load_model, load_tokenizer
from ftk.models.settings import ModelSettings
from ftk.runs.measure import Measure
from ftk.runs.passkeys import passkey_lengths

LONG = ("data.max_length=512", "model.context.length=512")


@pytest.fixture
def text_recipe(model_folder: Path, tmp_path: Path) -> Path:
    """Two documents of some 700 and 300 tokens, and one held out."""
    for name, numbers in (("long", range(70)), ("short", range(30)), ("held", range(100, 150))):
        text = "".join(f"Line {number} of a text that goes on.\n" for number in numbers)
        (tmp_path / f"{name}.txt").write_text(text)
    path = tmp_path / "recipe.yaml"
    path.write_text(
        f"""\
model: {model_folder}
task: cpt
data:
  train: [{{source: {tmp_path / "long.txt"}}}, {{source: {tmp_path / "short.txt"}}}]
  eval: {tmp_path / "held.txt"}
  max_length: 256
tuning: {{name: lora, rank: 2, also: norms}}
training: {{max_steps: 2, batch_size: 2, learning_rate: 1.0e-2, precision: fp32, schedule: constant}}
evaluation: {{every: null, by_position: true, passkey: {{lengths: [512], depths: [0.5], rows: 2}}}}
checkpoint: {{every: 1, keep: 5}}
output: {tmp_path / "run"}
"""
    )
    return path


def test_an_adapter_takes_its_positions_along(
    text_recipe: Path, model_folder: Path, tmp_path: Path, ftk_json: Ftk
) -> None:
    sparse = "model.context.shifted_sparse_attention={group: 64}"
    answer = ftk_json("train", text_recipe, *LONG, sparse)
    assert answer["exit_code"] == 0, answer["stderr"]
    assert "512 positions instead of 256, by yarn" in answer["stderr"]
    before, after = answer["evaluation"]["before"], answer["evaluation"]["after"]
    assert {"short_loss", "perplexity_from_256", "passkey_512", "passkey_512@depth=0.5"} <= set(after)
    # Frequencies are others for short rows, too; before scaling the short loss is that of the base itself.
    assert before["short_loss@unscaled"] != before["short_loss"]
    run = tmp_path / "run"
    assert (run / "passkey.png").exists()
    saved = json.loads((run / "model" / "context.json").read_text())
    older = saved["transformers_4"]["rope_scaling"]
    assert saved["rope_parameters"]["rope_type"] == older["rope_type"] == "yarn"
    assert max_positions(load_config(ModelSettings(id=str(run)))) == 512
    assert "512 positions instead of 256, by yarn. Programs other than ftk" in (run / "model" / "README.md").read_text()

    evaluated = ftk_json("eval", run)
    assert evaluated["exit_code"] == 0, evaluated["stderr"]
    for name in ("loss", "perplexity_from_256", "passkey", "passkey_512@depth=0.5"):
        assert evaluated["metrics"][name] == pytest.approx(after[name], rel=1e-4), name
    asked = ftk_json("eval", run, "--no-by-position", "--passkey", "128,256")["metrics"]
    assert {"passkey_128", "passkey_256@depth=0.5"} <= set(asked)
    assert not {"perplexity_from_0", "passkey_512"} & set(asked)
    assert "longer than the 512" in ftk_json("eval", run, "--passkey", "513")["error"]["message"]
    words = " ".join(f"line {number}" for number in range(75))
    told = ftk_json("generate", run, words, "--raw", "--max-new-tokens", "2")
    assert told["exit_code"] == 0, told["stderr"]
    assert told["num_tokens"] >= 1

    merged = ftk_json("merge", run, "--out", tmp_path / "merged")
    assert merged["exit_code"] == 0, merged["stderr"]
    assert merged["proof"]["judged"]
    config = AutoConfig.from_pretrained(tmp_path / "merged")
    assert config.rope_parameters == saved["rope_parameters"]
    assert config.max_position_embeddings == 512
    adapted = load_model(ModelSettings(id=str(run)), dtype=torch.float32).eval()
    whole = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
    row = torch.arange(3, 403)[None]
    torch.testing.assert_close(whole(input_ids=row).logits, adapted(input_ids=row).logits, rtol=1e-4, atol=1e-4)
    # As the model card says, other programs give the file's keys to the base's configuration.
    elsewhere = AutoConfig.from_pretrained(model_folder, **saved)
    assert elsewhere.rope_parameters == saved["rope_parameters"]

    further = ftk_json("train", text_recipe, f"model.id={run}", "data.max_length=512", f"output={tmp_path / 'next'}")
    assert further["exit_code"] == 0, further["stderr"]
    assert json.loads((tmp_path / "next" / "model" / "context.json").read_text()) == saved


@pytest.mark.parametrize("scaling", ["ntk", "dynamic"])
def test_a_whole_model_has_its_positions_in_its_configuration(
    scaling: str, text_recipe: Path, tmp_path: Path, ftk_json: Ftk
) -> None:
    words = (*LONG, f"model.context.scaling={scaling}", "tuning=full", "evaluation.passkey=null")
    answer = ftk_json("train", text_recipe, *words, "data.packing=true")
    assert answer["exit_code"] == 0, answer["stderr"]
    config = json.loads((tmp_path / "run" / "model" / "config.json").read_text())
    assert max_positions(AutoConfig.from_pretrained(tmp_path / "run" / "model")) == 512
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"]
    assert (config["rope_scaling"] or {}).get("rope_type") == {"ntk": None, "dynamic": "dynamic"}[scaling]
    evaluated = ftk_json("eval", tmp_path / "run")
    assert evaluated["metrics"]["loss"] == pytest.approx(answer["evaluation"]["after"]["loss"], abs=1e-5)


def test_a_resumed_run_is_bitwise_the_one_that_was_not_interrupted(
    text_recipe: Path, tmp_path: Path, ftk_json: Ftk, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (*LONG, "model.context.scaling=dynamic", "model.context.shifted_sparse_attention={group: 64}")

    def broken(self: Measure, model: object) -> None:
        raise RunError("the machine was taken away")

    with monkeypatch.context() as patched:
        patched.setattr(Measure, "after", broken)
        assert ftk_json("train", text_recipe, *words)["exit_code"] == 4
    resumed = ftk_json("train", text_recipe, *words, "training.max_steps=4")
    assert "going on from step 2" in resumed["stderr"]
    whole = ftk_json("train", text_recipe, *words, "training.max_steps=4", f"output={tmp_path / 'whole'}")
    assert resumed["final_loss"] == whole["final_loss"]
    assert resumed["evaluation"] == whole["evaluation"]


def test_frequencies_as_trained_are_the_bases_own_and_go_again(model_folder: Path) -> None:
    plain = load_model(ModelSettings(id=str(model_folder)), dtype=torch.float32).eval()
    settings = ModelSettings(id=str(model_folder), context={"length": 512})
    model: Any = load_model(settings, dtype=torch.float32).eval()
    row = torch.arange(3, 200)[None]
    extended = model(input_ids=row).logits
    with positions_as_trained(model, plain.config):
        torch.testing.assert_close(model(input_ids=row).logits, plain(input_ids=row).logits, rtol=0, atol=0)
    assert torch.equal(model(input_ids=row).logits, extended)
    assert (extended - plain(input_ids=row).logits).abs().max() > 1e-4


def test_without_dynamic_scaling_of_before_texts_do_not_change_with_what_came_before(
    model_folder: Path, tmp_path: Path
) -> None:
    settings = ModelSettings(id=str(model_folder), context={"length": 512, "scaling": "dynamic"})
    load_model(settings, dtype=torch.float32).save_pretrained(tmp_path / "dynamic")
    own = ModelSettings(id=str(tmp_path / "dynamic"))
    further = ModelSettings(id=own.id, context={"length": 1024, "scaling": "dynamic"})
    model: Any = load_model(further, dtype=torch.float32).eval()
    row = torch.randint(5, 500, (1, 400), generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), positions_as_trained(model, load_config(own)):
        first = model(input_ids=row[:, :300]).logits
        model(input_ids=row)
        assert torch.equal(model(input_ids=row[:, :300]).logits, first)


def test_default_lengths_of_texts_with_a_pass_key_hold_it(model_folder: Path) -> None:
    tokenizer = load_tokenizer(ModelSettings(id=str(model_folder)))
    for max_length, lengths in ((4096, (512, 1024, 2048, 4096)), (512, (128, 256, 512)), (64, (64,))):
        assert passkey_lengths(Passkey(), tokenizer, max_length=max_length, seed=0) == lengths
    assert passkey_lengths(Passkey(lengths=(9, 8)), tokenizer, max_length=512, seed=0) == (8, 9)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data.max_length=512"], "have the model read further: model.context.length=512"),
        (["model.context.scaling={name: yarn, factor: 0.5}"], "factor is 0.5, expected at least 1"),
        (["model.context.length=512", "model.context.scaling.name=yan"], "yarn"),
        ([*LONG, "model.context.scaling={name: yarn, beta_fast: 0.5}"], "beta_fast (0.5) must be more than beta_slow"),
        (["model.context={}"], "says neither a length nor a scaling with a factor"),
        (["model.context.length=256"], "has 256 positions already"),
        ([*LONG, "evaluation.passkey.lengths=1000"], "longer than the 512 positions"),
        ([*LONG, "evaluation.passkey.lengths=16"], "16 tokens cannot hold the pass key"),
        (["data.max_length=64", "evaluation.passkey.lengths=[]"], "64 tokens cannot hold the pass key"),
        ([*LONG, "model.context.shifted_sparse_attention.group=7"], "make it even"),
        ([*LONG, "model.context.shifted_sparse_attention.group=512"], "Take about a quarter"),
    ],
)
def test_what_cannot_be_is_refused(words: list[str], message: str, text_recipe: Path, ftk_json: Ftk) -> None:
    answer = ftk_json("train", text_recipe, *words)
    assert answer["exit_code"] == 2
    assert message in answer["error"]["message"]
    assert not text_recipe.with_name("run").exists()


def test_learned_positions_are_stretched_by_full_tuning_alone(text_recipe: Path, tmp_path: Path, ftk_json: Ftk) -> None:
    tokenizer = AutoTokenizer.from_pretrained(Path(load_config.__code__.co_filename).parent / "tiny")
    model = GPT2LMHeadModel(GPT2Config(n_embd=16, n_head=2, n_layer=1, vocab_size=len(tokenizer), n_positions=256))
    model.save_pretrained(tmp_path / "gpt2")
    tokenizer.save_pretrained(tmp_path / "gpt2")
    words = (*LONG, f"model.id={tmp_path / 'gpt2'}")
    refused = ftk_json("train", text_recipe, *words)
    assert refused["exit_code"] == 2
    assert "Take tuning: full" in refused["error"]["message"]
    answer = ftk_json("train", text_recipe, *words, "tuning=full")
    assert answer["exit_code"] == 0, answer["stderr"]
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "model")
    assert again.transformer.wpe.num_embeddings == again.config.n_positions == 512
