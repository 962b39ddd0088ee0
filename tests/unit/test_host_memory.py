"""What offloaded shards need of the machine's memory, and a model that no GPU holds whole: of all processes."""

import pytest
import torch

from ftk.memory.estimate import Estimate
from ftk.recipe.schema import Recipe
from ftk.runs import host_memory
from ftk.runs.estimate import estimate, question
from ftk.runs.memory_guard import Expectation

GPU = torch.device("cuda", 0)


def answer(strategy: str, processes: int = 2) -> Estimate:
    parallel = {"processes": processes, "strategy": strategy}
    values = {"model": "ftk://tiny", "data": "ftk://orders/train", "tuning": "full", "parallel": parallel}
    return estimate(question(Recipe.model_validate(values)))


@pytest.fixture(autouse=True)
def two_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setattr(host_memory, "free_bytes", lambda device: 10**8)


def test_processes_of_a_machine_share_its_memory() -> None:
    offloaded = answer("fsdp_offload")
    found = host_memory.host_memory(offloaded, GPU, fits_whole=True)
    # Weights, gradients and two states, half of each in each of two processes.
    assert found.needed == 2 * offloaded.per_device.host == 16 * offloaded.parameters
    assert found.line().endswith("expected for 2 processes, 100 MB free")


def test_what_no_gpu_holds_is_whole_in_each_process_at_the_start() -> None:
    found = host_memory.host_memory(answer("fsdp"), GPU, fits_whole=False)
    assert found.needed == 2 * 4 * answer("fsdp").parameters


def test_nothing_is_asked_of_the_machine_where_nothing_lies_there() -> None:
    assert host_memory.host_memory(answer("fsdp"), GPU, fits_whole=True) is None
    assert host_memory.host_memory(answer("ddp"), GPU, fits_whole=False) is None
    assert host_memory.host_memory(answer("fsdp_offload"), torch.device("cpu"), fits_whole=False) is None
    assert host_memory.host_memory(answer("fsdp_offload", 1), GPU, fits_whole=False) is None


def test_too_little_is_refused_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def found(free: int | None) -> host_memory.HostMemory:
        monkeypatch.setattr(host_memory, "free_bytes", lambda device: free)
        return host_memory.host_memory(answer("fsdp_offload"), GPU, fits_whole=True)

    needed = found(None).needed
    assert not found(None).lacks
    assert "not known" in found(None).line()
    assert not found(needed).lacks
    assert found(needed - 1).lacks
    assert "2 processes need" in found(needed - 1).refusal()


@pytest.mark.parametrize(("free", "fits"), [(None, True), (10**12, True), (10**3, False)])
def test_whether_a_device_holds_the_whole_model(free: int | None, fits: bool) -> None:
    expected = Expectation(answer("fsdp"), None, True, free, 0, 0)
    assert expected.fits_whole is fits
    assert Expectation(None, "why", False, free, 0, 0).fits_whole
