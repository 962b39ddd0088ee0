"""The guard: what cannot fit is refused with advice, what cannot be estimated goes on, and estimates are checked."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from ftk.core.errors import ModelError, SetupError
from ftk.core.types import Batch
from ftk.recipe.schema import Recipe
from ftk.runs import memory_guard
from ftk.runs.memory_guard import OVERESTIMATE, PROCESS_BYTES, Expectation, compare_memory, expect_memory

CPU = torch.device("cpu")
ONE_PROCESS = SimpleNamespace(device=CPU, num_processes=1)


def worst(rows: int = 4, length: int = 64) -> Batch:
    weights = torch.zeros(rows, length)
    weights[:, length // 2 :] = 1.0
    ids = torch.zeros(rows, length, dtype=torch.long)
    return Batch(ids, ids, ids + 1, weights, weights > 0, False, rows * length, rows, tuple(range(rows)))


def recipe(model: Path | str = "ftk://tiny", **training: object) -> Recipe:
    return Recipe.model_validate(
        {"model": str(model), "data": "ftk://orders/train", "tuning": "full", "training": training}
    )


def expect(monkeypatch, free: int | None, *, force: bool = False, **training: object) -> tuple[Expectation, list[str]]:
    monkeypatch.setattr(memory_guard, "free_bytes", lambda device: free)
    said: list[str] = []
    found = expect_memory(recipe(**training), worst, ONE_PROCESS, said.append, force=force)
    return found, said


def test_says_what_is_expected_and_free(monkeypatch):
    found, said = expect(monkeypatch, 10**12)
    total = found.answer.per_device.bytes.total
    assert said == [f"memory {memory_guard.shown(total)} expected, 1 TB free"]


def test_the_rows_that_are_there_count(monkeypatch):
    """Not rows of `max_length`: the estimate is of the worst batch, and of the tokens that the head is asked about."""
    short, _ = expect(monkeypatch, None)
    monkeypatch.setitem(globals(), "worst", lambda: worst_of(8, 256))
    long, _ = expect(monkeypatch, None)
    assert long.answer.per_device.bytes.activations > 6 * short.answer.per_device.bytes.activations
    assert long.answer.per_device.bytes.optimizer == short.answer.per_device.bytes.optimizer


worst_of = worst


def test_what_cannot_fit_is_refused_with_advice(monkeypatch):
    needed = expect(monkeypatch, None)[0].answer.per_device.bytes.total
    # It may be estimated too high by a tenth, so as much less is let go on.
    expect(monkeypatch, round(needed / OVERESTIMATE) + 1)
    with pytest.raises(SetupError, match=r"cannot fit.*What fits: .*training\..*--force goes on") as caught:
        expect(monkeypatch, round(needed / OVERESTIMATE) - 1)
    assert caught.value.exit_code == 3
    found, said = expect(monkeypatch, needed // 2, force=True)
    assert found.answer is not None
    assert "Going on all the same" in said[-1]


def test_what_cuda_took_before_is_not_asked_for_again(monkeypatch):
    """The context is part of the estimate, and not of what is free once it is there."""
    found, _ = expect(monkeypatch, None)
    total = found.answer.per_device.bytes.total
    started = replace(found, started=total // 2, free=round((total - total // 2) / OVERESTIMATE) + 1)
    assert not started.lacks(1)
    assert replace(started, started=0).lacks(1)
    assert replace(started, free=started.free - 2).lacks(1)
    assert started.line().startswith(f"memory {memory_guard.shown(total - total // 2)} expected")


def test_nothing_fits(monkeypatch):
    with pytest.raises(SetupError, match="nothing that can be changed makes this recipe fit"):
        expect(monkeypatch, 1000)


def test_of_an_unknown_family_only_weights_are_sure(monkeypatch):
    """Its activations are guessed, so that they alone refuse nothing."""
    found, _ = expect(monkeypatch, None)
    parts = found.answer.per_device.bytes
    standing = parts.weights + parts.gradients + parts.optimizer
    free = round(standing / OVERESTIMATE) + 1
    assert replace(found, free=free, is_known=True).lacks(1)
    assert not replace(found, free=free, is_known=False).lacks(1)
    assert replace(found, free=free, is_known=False).lacks(2)


def test_a_failure_of_its_own_never_ends_a_run(monkeypatch):
    def fails(*args: object, **options: object) -> None:
        raise KeyError("a surprise")

    monkeypatch.setattr(memory_guard, "question", fails)
    found, said = expect(monkeypatch, 5 * 10**9)
    assert said == ["memory could not be estimated ('a surprise'); 5 GB free"]
    assert found.answer is None

    monkeypatch.undo()
    monkeypatch.setattr(memory_guard, "estimate", fails)
    assert "could not be estimated ('a surprise')" in expect(monkeypatch, None)[1][0]

    def unknown(*args: object, **options: object) -> None:
        raise ModelError("no such family\nmore")

    monkeypatch.setattr(memory_guard, "question", unknown)
    assert expect(monkeypatch, None)[1] == ["memory could not be estimated (no such family); what is free is not known"]


def compared(monkeypatch, folder: Path, *, factor: float, extra: int = 0) -> tuple[str | None, dict]:
    """A run on a CPU whose process grew by `factor` times what was predicted, and `extra` bytes."""
    found, _ = expect(monkeypatch, None)
    predicted = 100 * 10**9
    scaled = replace(found.answer.per_device.bytes, weights=0)
    parts = replace(scaled, weights=predicted - scaled.total)
    answer = replace(found.answer, per_device=replace(found.answer.per_device, bytes=parts))
    found = replace(found, answer=answer, held=10**9, peak_before=2 * 10**9)
    peak = 10**9 + round(predicted * factor) + extra
    monkeypatch.setattr(memory_guard, "peak_memory_bytes", lambda device: peak)
    sentence = compare_memory(found, folder, CPU)
    return sentence, json.loads((folder / "memory.json").read_text())


def test_an_estimate_that_was_off_is_told(monkeypatch, tmp_path):
    sentence, written = compared(monkeypatch, tmp_path, factor=1.05)
    assert sentence is None
    assert written["measured_bytes"] == 105 * 10**9
    assert written["relative_error"] == pytest.approx(-5 / 105)
    sentence, _ = compared(monkeypatch, tmp_path, factor=1.25)
    assert sentence.startswith("memory: 100 GB were expected and 125 GB measured as the growth of the whole process, ")
    assert "evaluations included: the estimate lay 20% below it" in sentence
    sentence, _ = compared(monkeypatch, tmp_path, factor=0.8)
    assert "25% above it" in sentence


def test_what_a_process_takes_besides_is_no_error_of_the_estimate(monkeypatch, tmp_path):
    found, _ = expect(monkeypatch, None)
    predicted = found.answer.per_device.bytes.total
    found = replace(found, held=10**9, peak_before=10**9)
    for more, is_told in ((PROCESS_BYTES, False), (PROCESS_BYTES + 1, True)):
        monkeypatch.setattr(memory_guard, "peak_memory_bytes", lambda device, more=more: 10**9 + predicted + more)
        assert (compare_memory(found, tmp_path, CPU) is not None) == is_told


def test_a_peak_from_before_measures_nothing(monkeypatch, tmp_path):
    """Where reading the data took more than training did, the process's peak says nothing of training."""
    found, _ = expect(monkeypatch, None)
    found = replace(found, held=10**9, peak_before=8 * 10**9)
    monkeypatch.setattr(memory_guard, "peak_memory_bytes", lambda device: 8 * 10**9)
    assert compare_memory(found, tmp_path, CPU) is None
    assert json.loads((tmp_path / "memory.json").read_text())["measured_bytes"] is None
