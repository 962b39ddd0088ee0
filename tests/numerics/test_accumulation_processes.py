"""One process, two with a copy of the weights each, and two with shards give the same weights. Real gloo processes."""

import json
import sys
from pathlib import Path

import pytest
import torch
from rows_stand_in import OBJECTIVES
from safetensors.torch import load_file

from ftk.train.launch import launch

SCRIPT = Path(__file__).with_name("train_stand_in.py")


def run(folder: Path, *, processes: int = 1, expect: int = 0, **options) -> dict[str, torch.Tensor]:
    """The weights after a run of its own in `processes` new processes, of the last of several objectives."""
    folder.mkdir(parents=True, exist_ok=True)
    code = launch([sys.executable, str(SCRIPT), str(folder), json.dumps(options)], processes=processes)
    assert code == expect
    return weights(folder) if expect == 0 else {}


def weights(folder: Path, objective: str = "sft") -> dict[str, torch.Tensor]:
    return load_file(folder / objective / "final.safetensors")


def lines(folder: Path, objective: str = "sft") -> list[dict]:
    return [json.loads(line) for line in (folder / objective / "metrics.jsonl").read_text().splitlines()]


OPTIONS = {"double": True, "num_rows": 37, "tuning": "full"}


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    run(folder, objectives=OBJECTIVES, **OPTIONS)
    return folder


@pytest.fixture(scope="module", params=["ddp", "fsdp"])
def together(request, tmp_path_factory) -> Path:
    """Two processes, which train by one objective after the other: starting them takes longer than the training."""
    folder = tmp_path_factory.mktemp(request.param)
    run(folder, processes=2, strategy=request.param, micro=2, objectives=OBJECTIVES, **OPTIONS)
    return folder


def same(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor], tolerance: float = 1e-9) -> None:
    assert found.keys() == wanted.keys()
    for name, one in wanted.items():
        torch.testing.assert_close(found[name], one, rtol=tolerance, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_two_processes_give_the_weights_of_one(objective, alone, together):
    """known_bugs: data-parallel mean of means; sharded head (it is tied, and chunked); scheduler.

    37 rows in steps of 8 leave a last step of 5, in which a process runs an idle micro-batch.
    """
    same(weights(together, objective), weights(alone, objective))
    for one, two in zip(lines(alone, objective), lines(together, objective), strict=True):
        assert two.keys() == one.keys()
        for name in one.keys() - {"tokens_per_second", "peak_memory_bytes"}:
            assert two[name] == pytest.approx(one[name], rel=1e-9, abs=1e-12), name


def test_offloading_on_a_cpu_is_sharding_to_the_bit(tmp_path):
    """Trained without a stop, and stopped and gone on with: losses, weights and what the gathered model says."""
    options = {**OPTIONS, "processes": 2, "micro": 2, "tuning": "lora"}
    wanted = run(tmp_path / "fsdp", strategy="fsdp", **options)
    offloaded = {**options, "strategy": "fsdp_offload"}
    run(tmp_path / "offload", signal_at=8, expect=75, **offloaded)
    assert 0 < len(lines(tmp_path / "offload")) < 8
    found = run(tmp_path / "offload", **offloaded)
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], one) for name, one in wanted.items())
    for own, other in zip(lines(tmp_path / "offload"), lines(tmp_path / "fsdp"), strict=True):
        for name in own.keys() - {"tokens_per_second", "peak_memory_bytes"}:
            assert own[name] == other[name], name


def test_sharded_training_is_saved_and_goes_on_with_one_process(tmp_path):
    options = {**OPTIONS, "tuning": "lora"}
    wanted = run(tmp_path / "alone", **options)
    run(tmp_path, processes=2, strategy="fsdp", micro=2, signal_at=8, expect=75, **options)
    stopped = len(lines(tmp_path))
    assert 0 < stopped < 8
    same(run(tmp_path, **options), wanted)
    assert [line["step"] for line in lines(tmp_path)] == list(range(1, 9))
