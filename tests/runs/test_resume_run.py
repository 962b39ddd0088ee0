"""Runs that are killed, terminated or interrupted go on, and end bitwise where an undisturbed run ends."""

import json
import os
import signal
import time
from pathlib import Path

import pytest
import torch
from run_ftk import Ftk, start_ftk
from safetensors.torch import load_file

from ftk.runs.measure import Measure

LONG = ("training.max_steps=5000", "training.schedule=constant", "evaluation.metrics=[]", "evaluation.every=null")


def wait_for_steps(run: Path, process: object, num: int = 4) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        metrics = run / "metrics.jsonl"
        if metrics.exists() and metrics.read_bytes().count(b"\n") >= num:
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    raise AssertionError("the run made no steps")


def losses_of(run: Path) -> list[tuple[int, float]]:
    return [(line["step"], line["loss"]) for line in map(json.loads, (run / "metrics.jsonl").read_text().splitlines())]


@pytest.mark.parametrize(
    ("number", "exit_code"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 75), (signal.SIGINT, 130)]
)
def test_an_interrupted_run_ends_bitwise_where_an_undisturbed_one_does(
    recipe_file: Path, tmp_path: Path, ftk_json: Ftk, number: int, exit_code: int
) -> None:
    run = tmp_path / "run"
    process = start_ftk("train", recipe_file, *LONG)
    wait_for_steps(run, process)
    process.send_signal(number)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == exit_code, errors
    assert "Traceback" not in errors
    if number != signal.SIGKILL:
        assert "same command goes on" in errors
        assert output == ""

    # A line that a killed run wrote after its last checkpoint is not repeated.
    saved = max(int(path.name.removeprefix("step-")) for path in (run / "checkpoints").glob("step-*"))
    steps = f"training.max_steps={saved + 3}"
    resumed = ftk_json("train", recipe_file, *LONG, steps)
    assert resumed["run_folder"] == str(run)
    assert f"going on from step {saved}" in resumed["stderr"]

    whole = tmp_path / "whole"
    ftk_json("train", recipe_file, *LONG, steps, "--output", whole)
    assert losses_of(run) == losses_of(whole)
    expected = load_file(whole / "model" / "model.safetensors")
    for name, weight in load_file(run / "model" / "model.safetensors").items():
        assert torch.equal(weight, expected[name]), name


def test_a_run_outlives_whoever_read_its_progress(recipe_file: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = start_ftk("train", recipe_file, *LONG)
    wait_for_steps(run, process)
    assert process.stderr is not None
    process.stderr.close()
    # Longer than plain lines are apart: it finds out that nobody reads.
    written = (run / "metrics.jsonl").stat().st_size
    time.sleep(6)
    assert process.poll() is None
    assert (run / "metrics.jsonl").stat().st_size > written
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 75
    assert process.stdout is not None
    process.stdout.close()
    assert list((run / "checkpoints").glob("step-*"))


@pytest.mark.parametrize("phase", ["before", "after"])
def test_sigterm_outside_the_steps_is_told_and_the_run_goes_on(
    recipe_file: Path, tmp_path: Path, ftk_json: Ftk, monkeypatch: pytest.MonkeyPatch, phase: str
) -> None:
    short = ("training.max_steps=2", "evaluation.metrics=[]")
    with monkeypatch.context() as patched:
        patched.setattr(Measure, phase, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
        answer = ftk_json("train", recipe_file, *short)
    assert (answer["exit_code"], answer["error"]["type"]) == (75, "Stopped")
    assert "same command goes on" in answer["error"]["message"]
    resumed = ftk_json("train", recipe_file, *short)
    assert (resumed["run_folder"], resumed["steps"]) == (str(tmp_path / "run"), 2)
    assert ("going on from step 2" in resumed["stderr"]) == (phase == "after")
    assert [step for step, _ in losses_of(tmp_path / "run")] == [1, 2]


def test_a_run_under_way_is_left_alone(recipe_file: Path, tmp_path: Path, ftk_json: Ftk) -> None:
    """Two processes that take the same folder for an unfinished run would write over each other."""
    process = start_ftk("train", recipe_file, *LONG)
    wait_for_steps(tmp_path / "run", process)
    answer = ftk_json("train", recipe_file, *LONG)
    assert answer["exit_code"] == 2
    assert f"a run is under way in {tmp_path / 'run'}" in answer["error"]["message"]
    assert str(process.pid) in answer["error"]["message"]
    beside = ftk_json("train", recipe_file, *LONG, "training.max_steps=1", "--fresh")
    assert beside["run_folder"] == str(tmp_path / "run-2")
    assert process.poll() is None
    process.kill()
    process.communicate(timeout=60)


def test_a_changed_recipe_is_refused_when_insisted_on(recipe_file: Path, tmp_path: Path, ftk_json: Ftk) -> None:
    process = start_ftk("train", recipe_file, *LONG)
    wait_for_steps(tmp_path / "run", process)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    answer = ftk_json("train", recipe_file, *LONG, "training.learning_rate=0.5", "--resume")
    assert answer["exit_code"] == 2
    assert "training.learning_rate: 0.01 then, 0.5 now" in answer["error"]["message"]
