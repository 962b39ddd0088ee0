"""One process, two with copies and two with shards learn the same, and one goes on where two stopped."""

import json
from pathlib import Path

import pytest
import torch
from run_ftk import start_ftk
from safetensors.torch import load_file

QUIET = ("evaluation.before=false", "training.schedule=constant")


@pytest.fixture
def without_dropout(recipe_file: Path, model_folder: Path, tmp_path: Path) -> Path:
    """The recipe with a model that does not drop out: its draws depend on the split."""
    folder = tmp_path / "no_dropout"
    folder.mkdir()
    for file in model_folder.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "attention_dropout": 0.0}))
    recipe_file.write_text(recipe_file.read_text().replace(f"model: {model_folder}", f"model: {folder}"))
    return recipe_file


def train(recipe: Path, output: Path, *words: str) -> dict[str, object]:
    process = start_ftk("train", recipe, *QUIET, *words, "--output", output, "--json")
    out, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    return json.loads(out.splitlines()[-1])


def rows(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_learn_what_one_does(without_dropout: Path, tmp_path: Path, strategy: str) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    alone = train(without_dropout, one)
    together = train(without_dropout, two, "--processes", "2", "--strategy", strategy, "training.max_steps=4")
    # One process goes on where two stopped: the same folder, two more steps.
    assert together["steps"] == 4
    (two / "report.json").unlink()
    finished = train(without_dropout, two)
    assert finished["steps"] == alone["steps"] == 6
    for own, other in zip(rows(one), rows(two), strict=True):
        for key in ("loss", "grad_norm", "token_accuracy"):
            assert other[key] == pytest.approx(own[key], rel=1e-5), key
        for key in ("step", "learning_rate", "tokens"):
            assert other[key] == own[key], key
    expected = load_file(one / "model" / "model.safetensors")
    found = load_file(two / "model" / "model.safetensors")
    assert expected.keys() == found.keys()
    for name, weight in found.items():
        torch.testing.assert_close(weight, expected[name], rtol=1e-3, atol=1e-4)
    for key, value in alone["evaluation"]["after"].items():
        assert finished["evaluation"]["after"][key] == pytest.approx(value, rel=1e-4), key


def test_shards_are_measured_before_and_after(without_dropout: Path, tmp_path: Path) -> None:
    """Losses on the shards and answers on the whole, as one process measures them; on a CPU nothing is offloaded."""
    one, two = tmp_path / "one", tmp_path / "two"
    more = ("training.max_steps=1", "evaluation.before=true", "evaluation.metrics=exact_match")
    alone = train(without_dropout, one, *more)
    together = train(without_dropout, two, *more, "--processes", "2", "--strategy", "fsdp_offload")
    for when in ("before", "after"):
        assert together["evaluation"][when].keys() == alone["evaluation"][when].keys()
        for key, value in alone["evaluation"][when].items():
            assert together["evaluation"][when][key] == pytest.approx(value, rel=1e-4), (when, key)


def test_every_weight_of_shards_is_trained_and_saved_however_often_they_are_measured(
    without_dropout: Path, tmp_path: Path
) -> None:
    """After losses alone the outermost weights were whole still: the optimizer and checkpoints missed them."""
    one, two = tmp_path / "one", tmp_path / "two"
    more = ("training.max_steps=2", "evaluation.metrics=[]", "checkpoint.every=1", "checkpoint.keep=2")
    train(without_dropout, one, *more)
    measured = (*more, "evaluation.before=true", "evaluation.every=1")
    train(without_dropout, two, *measured, "--processes", "2", "--strategy", "fsdp")
    for step in ("step-1", "step-2"):
        expected, found = (load_file(run / "checkpoints" / step / "weights.safetensors") for run in (one, two))
        assert expected.keys() == found.keys()
        for name, weight in found.items():
            torch.testing.assert_close(weight, expected[name], rtol=1e-3, atol=1e-4)


def test_an_error_of_a_group_is_said_once(without_dropout: Path, tmp_path: Path) -> None:
    process = start_ftk("train", without_dropout, "data.train=nowhere.jsonl", "--processes", "2", "--json")
    out, errors = process.communicate(timeout=120)
    assert process.returncode == 2
    assert json.loads(out)["error"]["type"] == "DataError"
    assert errors.count("nowhere.jsonl") == 1
    assert "Traceback" not in errors
