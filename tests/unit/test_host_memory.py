"""What offloaded shards need of the machine's memory, and a model that no GPU holds whole: of all processes."""

import pytest
import torch

from ftk.memory.estimate import Estimate
from ftk.recipe.schema import Recipe
from ftk.runs import host_memory
from ftk.runs.estimate import estimate, question

GPU = torch.device("cuda", 0)


def answer(strategy: str, processes: int = 2, tuning: str = "full") -> Estimate:
    parallel = {"processes": processes, "strategy": strategy}
    values = {"model": "ftk://tiny", "data": "ftk://orders/train", "tuning": tuning, "parallel": parallel}
    return estimate(question(Recipe.model_validate(values)))


@pytest.fixture(autouse=True)
def two_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setattr(host_memory, "free_bytes", lambda device: 10**8)


def test_processes_of_a_machine_share_its_memory() -> None:
    offloaded = answer("fsdp_offload")
    found = host_memory.host_memory(offloaded, GPU, loads_whole=False)
    # Weights, gradients and two states, half of each in each of two processes.
    assert found.needed == 2 * offloaded.per_device.host == 16 * offloaded.parameters
    assert found.line().startswith("memory of this machine at least ")
    assert found.line().endswith("expected for 2 processes, 100 MB free")


def test_what_no_gpu_holds_is_whole_in_each_process_at_the_start() -> None:
    found = host_memory.host_memory(answer("fsdp"), GPU, loads_whole=True)
    assert found.needed == 2 * 4 * answer("fsdp").parameters


def test_nothing_is_asked_of_the_machine_where_nothing_lies_there() -> None:
    assert host_memory.host_memory(answer("fsdp"), GPU, loads_whole=False) is None
    assert host_memory.host_memory(answer("ddp"), GPU, loads_whole=True) is None
    assert host_memory.host_memory(answer("fsdp_offload"), torch.device("cpu"), loads_whole=True) is None
    assert host_memory.host_memory(answer("fsdp_offload", 1), GPU, loads_whole=True) is None


def test_too_little_is_refused_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def found(free: int | None) -> host_memory.HostMemory:
        monkeypatch.setattr(host_memory, "free_bytes", lambda device: free)
        return host_memory.host_memory(answer("fsdp_offload"), GPU, loads_whole=False)

    needed = found(None).needed
    assert not found(None).lacks
    assert "not known" in found(None).line()
    assert not found(needed).lacks
    assert found(needed - 1).lacks
    assert "2 processes need" in found(needed - 1).refusal()


def test_only_what_helps_is_named() -> None:
    """An adapter is there already under LoRA; shards are larger where processes are fewer, and whole models are not."""

    def refusal(strategy: str, tuning: str) -> str:
        return host_memory.host_memory(answer(strategy, tuning=tuning), GPU, loads_whole=strategy == "fsdp").refusal()

    assert "Take tuning: lora, fewer processes on this machine, a smaller model, or" in refusal("fsdp", "full")
    assert "Take fewer processes on this machine, a smaller model, or" in refusal("fsdp", "lora")
    assert "Take tuning: lora, a smaller model, or" in refusal("fsdp_offload", "full")
    assert "at least" not in host_memory.host_memory(answer("fsdp"), GPU, loads_whole=True).line()
