"""Answers that weigh a fraction, and reasoning that weighs less, stopped and resumed: bitwise the undisturbed run."""

import json
from pathlib import Path

import torch
from interrupted import sigterm_at_call
from run_ftk import Ftk
from safetensors.torch import load_file

from ftk.train.step import Step


def test_fractional_weights_resume_bitwise(recipe_file: Path, tmp_path: Path, ftk_json: Ftk) -> None:
    rows = tmp_path / "weighed.jsonl"
    answers = [{"weight": 0.25, "reasoning_content": "hm"}, {"weight": 0}, {"weight": 1, "reasoning_content": "ha"}]
    questions = [{"role": "user", "content": f"{number}?"} for number in range(12)]
    messages = [
        [turn for mark in answers for turn in (question, {"role": "assistant", "content": f"{number}.", **mark})]
        for number, question in enumerate(questions)
    ]
    rows.write_text("".join(json.dumps({"messages": one}) + "\n" for one in messages))
    task = "task={name: sft, reasoning_weight: 0.5, prompt_loss_weight: 0.125}"
    data = (f"data.train={rows}", f"data.eval={rows}", "data.chat_template=chatml_tools", "evaluation.metrics=[]")
    words = ("train", recipe_file, task, *data)
    with sigterm_at_call(2, Step, "__call__"):
        answer = ftk_json(*words, "--output", tmp_path / "stopped")
    assert answer["exit_code"] == 75, answer
    resumed = ftk_json(*words, "--output", tmp_path / "stopped")
    assert "going on from step" in resumed["stderr"]
    whole = ftk_json(*words, "--output", tmp_path / "whole")
    found, expected = (load_file(Path(one["model_folder"]) / "model.safetensors") for one in (resumed, whole))
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    weights, plain = (
        ftk_json(*words, *more, "training.max_steps=1", "--output", tmp_path / name)["final_loss"]
        for name, more in (("one", ()), ("other", ("task.reasoning_weight=1",)))
    )
    assert weights != plain
