"""Embeddings, head and norms beside LoRA: trained, resumed, saved, found again, continued, merged and sharded."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from run_ftk import Ftk, start_ftk
from safetensors.torch import load_file

ALSO = (
    "tuning={name: lora, rank: 4, also: [embeddings, norms], also_learning_rate: 1.0e-3}",
    "training.schedule=constant",
    "training.learning_rate=1.0e-2",
    "evaluation.metrics=[]",
)


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model" / "adapter_model.safetensors")


def rows(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_trained_resumed_evaluated_continued_and_merged(recipe_file: Path, tmp_path: Path, ftk_json: Ftk) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run = ftk_json("train", recipe_file, *ALSO, "--output", whole)
    assert run["exit_code"] == 0, run["stderr"]
    assert "trained whole beside the adapters: lm_head, embed_tokens, 2 input_layernorm, 2 post" in run["stderr"]
    assert {(row["learning_rate"], row["also_learning_rate"]) for row in rows(whole)} == {(0.01, 0.001)}
    names = {name.removeprefix("base_model.model.") for name in weights(whole) if ".lora_" not in name}
    assert {"model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"} <= names
    assert len(names) == 7

    # known_bugs: resume.
    ftk_json("train", recipe_file, *ALSO, "training.max_steps=4", "--output", parts)
    (parts / "report.json").unlink()
    assert "going on from step 4" in ftk_json("train", recipe_file, *ALSO, "--output", parts)["stderr"]
    for name, tensor in weights(parts).items():
        assert torch.equal(tensor, weights(whole)[name]), name

    after = run["evaluation"]["after"]["loss"]
    measured = ftk_json("eval", whole)["metrics"]["loss"]
    assert measured == pytest.approx(after, rel=1e-5)
    assert after < run["evaluation"]["before"]["loss"]

    # known_bugs: tied head drift. The proof of the merge holds, and one weight stays one weight.
    merged = ftk_json("merge", whole, "--out", tmp_path / "merged")
    assert merged["proof"]["holds"], merged["stderr"]
    assert "lm_head.weight" not in load_file(tmp_path / "merged" / "model.safetensors")
    assert json.loads((tmp_path / "merged" / "config.json").read_text())["tie_word_embeddings"]
    rows_file = json.loads((whole / "recipe.json").read_text())["data"]["eval"][0]["source"]
    merged_loss = ftk_json("eval", tmp_path / "merged", "--data", rows_file)["metrics"]["loss"]
    assert merged_loss == pytest.approx(after, rel=1e-4)

    # The adapter goes on with all that it trained, silent of it or not.
    on = ftk_json("train", recipe_file, "tuning=lora", "--model", whole, "--output", tmp_path / "on")
    assert on["evaluation"]["before"]["loss"] == pytest.approx(after, rel=1e-5)
    assert not torch.equal(
        weights(tmp_path / "on")["base_model.model.model.norm.weight"],
        weights(whole)["base_model.model.model.norm.weight"],
    )


def test_two_processes_with_shards_train_what_one_does(recipe_file: Path, model_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "no_dropout"
    folder.mkdir()
    for file in model_folder.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "attention_dropout": 0.0}))
    more = (*ALSO, "--model", folder, "training.max_steps=3", "evaluation.before=false")
    for name, words in (("one", ()), ("two", ("--processes", "2", "--strategy", "fsdp"))):
        process = start_ftk("train", recipe_file, *more, *words, "--output", tmp_path / name, "--json")
        _, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors
    alone, together = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert alone.keys() == together.keys()
    for name, tensor in together.items():
        torch.testing.assert_close(tensor, alone[name], rtol=1e-3, atol=1e-4, msg=name)
