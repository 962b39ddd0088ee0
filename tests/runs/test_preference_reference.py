"""The reference of preference losses: what it is, what it costs, and its cache."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from adapter_files import make_adapter
from interrupted import sigterm_at_call
from preference_rows import (
    NUM_PAIRS,
    ONE_STEP,
    PAIRS,
    model_of,
    parts_in,
    steps_of,
    write_rows,
)
from run_ftk import Ftk
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from ftk.recipe.load import load_recipe
from ftk.runs import forward_size, reference
from ftk.runs.training_data import read_training_data

pytestmark = pytest.mark.usefixtures("cache")


@pytest.mark.parametrize("tuning", ["lora", "{name: lora, dropout: 0.5}", "full"])
def test_the_reference_of_an_adapter_is_the_base_with_it(
    recipe: Path, rows_file: Path, tmp_path: Path, ftk_json: Ftk, tuning: str
) -> None:
    answers = tmp_path / "answers"
    sft = ("task=sft", f"data.train={rows_file}", "data.eval=null", "evaluation.every=null", "checkpoint.every=null")
    rate = "training.learning_rate=0.05"
    ftk_json("train", recipe, *sft, rate, "tuning={name: lora, rank: 2, alpha: 8}", "--output", answers)
    plain = ftk_json("train", recipe, *ONE_STEP, "--output", tmp_path / "plain")
    measured = ("--model", answers, f"tuning={tuning}", "evaluation.before=true")
    answer = ftk_json("train", recipe, *ONE_STEP, *measured)
    assert answer["exit_code"] == 0, answer["stderr"]
    before = answer["evaluation"]["before"]
    assert before["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert before["kl"] == pytest.approx(0, abs=1e-5)
    assert plain["exit_code"] == 0
    assert abs(before["logps_chosen"] - steps_of(tmp_path / "plain")[0]["logps_chosen"]) > 0.1
    if "dropout" not in tuning:
        assert steps_of(tmp_path / "run")[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    config = tmp_path / "run" / "model" / "adapter_config.json"
    assert config.exists() == (tuning != "full")
    if tuning != "full":
        assert json.loads(config.read_text())["r"] == 2
    # What was written is what was trained: base, adapter and all that was learned since.
    again = ftk_json("eval", tmp_path / "run", "--data", rows_file)
    held_out = ftk_json("eval", answers, "--data", rows_file)
    assert again["metrics"]["loss"] == pytest.approx(held_out["metrics"]["loss"], abs=0.2)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_an_adapter_that_took_its_part_out_of_the_base_is_not_switched_off(
    recipe: Path, model: Path, tmp_path: Path, ftk_json: Ftk, init: str
) -> None:
    """The base without it is no model that was ever there."""
    start = make_adapter(model, tmp_path / "start", init_lora_weights=init)
    answer = ftk_json("train", recipe, *ONE_STEP, "--model", start, "tuning=lora", "evaluation.before=true")
    assert answer["exit_code"] == 0, answer["stderr"]
    assert answer["evaluation"]["before"]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert answer["evaluation"]["before"]["kl"] == pytest.approx(0, abs=1e-5)


def test_an_adapter_of_other_settings_is_refused(recipe: Path, rows_file: Path, tmp_path: Path, ftk_json: Ftk) -> None:
    answers = tmp_path / "answers"
    sft = ("task=sft", f"data.train={rows_file}", "data.eval=null", "evaluation.every=null", "checkpoint.every=null")
    ftk_json("train", recipe, *sft, "training.max_steps=1", "tuning={name: lora, rank: 2}", "--output", answers)
    for tuning, place in (
        ("{name: lora, rank: 4}", "tuning.rank"),
        ("{name: lora, target_modules: [q_proj]}", "tuning.target_modules"),
    ):
        answer = ftk_json("train", recipe, "--model", answers, f"tuning={tuning}")
        assert (answer["exit_code"], answer["error"]["place"]) == (2, place)
        assert "made with" in answer["error"]["message"]
    assert not (tmp_path / "run").exists()


def test_the_reference_is_computed_without_dropout(
    recipe: Path, model_folder: Path, ftk_json: Ftk, cache: Path
) -> None:
    """The same weights whose attention drops out: bitwise the same figures, though not the same model to the cache."""
    ftk_json("train", recipe, *ONE_STEP)
    (still,) = {path.read_bytes() for path in parts_in(cache)}
    ftk_json("train", recipe, *ONE_STEP, "--model", model_folder, "--fresh")
    assert len(parts_in(cache)) == 2
    assert {path.read_bytes() for path in parts_in(cache)} == {still}


@pytest.mark.parametrize("loss", ["dpo", "kto"])
def test_the_reference_is_what_transformers_says_of_each_text_by_itself(
    recipe: Path, model: Path, ftk_json: Ftk, cache: Path, loss: str
) -> None:
    ftk_json("train", recipe, *ONE_STEP, f"task.loss={loss}")
    (part,) = parts_in(cache)
    loaded = load_recipe(str(recipe), [f"task.loss={loss}"]).recipe
    examples = read_training_data(loaded).train.examples
    causal_lm = AutoModelForCausalLM.from_pretrained(model)
    branches = (1, 2) if loss == "dpo" else (1, -1)
    expected = []
    for index in np.argsort(-examples.lengths_N, kind="stable"):
        example = examples[int(index)]
        assert example.branches_L is not None
        trunk = example.token_ids_L[example.branches_L == 0]
        for branch in branches:
            own = example.token_ids_L[example.branches_L == branch]
            # What a template puts after the end of the turn is no part of the answer.
            is_answer = torch.from_numpy(example.weights_L[example.branches_L == branch] > 0)
            tokens = torch.tensor(np.concatenate([trunk, own])[None], dtype=torch.long)
            with torch.no_grad():
                logps = causal_lm(input_ids=tokens).logits[0, :-1].double().log_softmax(-1)
            expected.append(logps.gather(1, tokens[0, 1:, None])[len(trunk) - 1 :, 0][is_answer].sum().item())
    found = load_file(part)["logps"]
    torch.testing.assert_close(found.double().flatten(), torch.tensor(expected).double(), rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize("loss", ["dpo", "kto"])
def test_a_forward_pass_of_the_reference_holds_few_tokens_on_a_cpu(
    recipe: Path, ftk_json: Ftk, monkeypatch: pytest.MonkeyPatch, loss: str
) -> None:
    """No more than a step of training, or the pass would decide how much memory a run takes."""
    monkeypatch.setattr(forward_size, "CPU_TOKENS", 100)
    shapes: list[torch.Size] = []
    own = reference.completion_sums

    def told(values_BL: torch.Tensor, *arguments: Any, **rest: Any) -> torch.Tensor:
        shapes.append(values_BL.shape)
        return own(values_BL, *arguments, **rest)

    monkeypatch.setattr(reference, "completion_sums", told)
    ftk_json("train", recipe, *ONE_STEP, f"task.loss={loss}")
    assert len(shapes) > 2
    assert all(shape.numel() <= 100 or shape[0] == 1 for shape in shapes)


def test_the_reference_is_found_in_the_cache(recipe: Path, ftk_json: Ftk, cache: Path, tmp_path: Path) -> None:
    first = ftk_json("train", recipe)
    assert f"log-probabilities of {NUM_PAIRS} rows" in first["stderr"]
    assert "before anything is learned" in first["stderr"]
    again = ftk_json("train", recipe)
    assert "(from the cache)" in again["stderr"]
    assert "before anything is learned" not in again["stderr"]
    shutil.rmtree(cache)
    anew = ftk_json("train", recipe)
    assert "before anything is learned" in anew["stderr"]
    for other in (again, anew):
        assert [line["loss"] for line in steps_of(Path(other["run_folder"]))] == [
            line["loss"] for line in steps_of(Path(first["run_folder"]))
        ]
        assert all(torch.equal(weight, model_of(first)[name]) for name, weight in model_of(other).items())


def test_a_cache_of_another_model_or_other_rows_is_not_used_and_that_is_said(
    recipe: Path, model: Path, pairs: Path, ftk_json: Ftk, cache: Path
) -> None:
    ftk_json("train", recipe, *ONE_STEP)
    trained = ftk_json("train", recipe, "training.max_steps=2", "training.learning_rate=0.05", "--fresh")
    shutil.copy(Path(trained["model_folder"]) / "model.safetensors", model / "model.safetensors")
    answer = ftk_json("train", recipe, *ONE_STEP, "--fresh")
    said = f"the cached log-probabilities of {pairs} were made from"
    assert f"{said} another model: computed anew" in answer["stderr"]
    assert steps_of(Path(answer["run_folder"]))[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)

    write_rows(pairs, [*PAIRS[1:], PAIRS[0]])
    answer = ftk_json("train", recipe, *ONE_STEP, "--fresh")
    assert f"{said} other rows: computed anew" in answer["stderr"]
    assert steps_of(Path(answer["run_folder"]))[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)


@pytest.mark.parametrize("package", ["torch", "bitsandbytes"])
def test_a_cache_that_another_version_made_is_not_used_and_that_is_said(
    recipe: Path, ftk_json: Ftk, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    ftk_json("train", recipe, *ONE_STEP)
    versions = {**reference.packages(), package: "0.0.1"}
    monkeypatch.setattr(reference, "packages", lambda: versions)
    answer = ftk_json("train", recipe, *ONE_STEP, "--fresh")
    assert "were made from another precision or version: computed anew" in answer["stderr"]


def test_a_cache_that_was_moved_or_damaged_is_not_believed(
    recipe: Path, model: Path, ftk_json: Ftk, cache: Path
) -> None:
    ftk_json("train", recipe, *ONE_STEP)
    (part,) = parts_in(cache)
    facts = json.loads((part.parent / "facts.json").read_text())
    (part.parent / "facts.json").write_text(json.dumps({**facts, "weights": "0" * 64, "model": "elsewhere"}))
    answer = ftk_json("train", recipe, *ONE_STEP, "--fresh")
    assert "were made from another model (elsewhere): computed anew" in answer["stderr"]
    own = part.read_bytes()
    part.write_bytes(own[:-5])
    answer = ftk_json("train", recipe, *ONE_STEP, "--fresh")
    assert answer["exit_code"] == 0
    assert "before anything is learned" in answer["stderr"]
    assert part.read_bytes() == own


def test_a_stopped_reference_pass_goes_on_where_it_stopped(
    recipe: Path, tmp_path: Path, ftk_json: Ftk, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference, "ROWS_PER_PART", 5)
    with sigterm_at_call(2, reference, "_part") as calls:
        answer = ftk_json("train", recipe, *ONE_STEP)
        assert (answer["exit_code"], answer["error"]["type"]) == (75, "Stopped")
        assert len(parts_in(cache)) == 1
        assert not (tmp_path / "run").exists()
        resumed = ftk_json("train", recipe, *ONE_STEP)
        assert "5 are in the cache" in resumed["stderr"]
        # One of three was there; training and held-out rows are the same here.
        assert len(calls) == 2 + 2
    whole = sorted(path.read_bytes() for path in parts_in(cache))
    shutil.rmtree(cache)
    ftk_json("train", recipe, *ONE_STEP, "--fresh")
    assert sorted(path.read_bytes() for path in parts_in(cache)) == whole
