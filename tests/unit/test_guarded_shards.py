"""The guard of a run in shards on GPUs: where models are loaded, what needs them whole, and what else is proposed."""

from types import SimpleNamespace

import pytest
import torch

from ftk.core.errors import SetupError
from ftk.core.types import Batch
from ftk.recipe.schema import Recipe
from ftk.runs import host_memory, memory_guard
from ftk.runs.advising.devices import devices
from ftk.runs.advising.fit import MARGIN, Fit, Plan
from ftk.runs.estimate import estimate, question
from ftk.runs.memory_guard import Expectation, expect_memory

GPU = torch.device("cuda", 0)
METRICS = {"data": {"train": "ftk://orders/train", "eval": "ftk://orders/test"}, "evaluation": {"metrics": "f1"}}


@pytest.fixture(autouse=True)
def gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of them, which this build of torch does not know."""
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=10**11))
    monkeypatch.setattr(memory_guard, "_anywhere", lambda found, accelerator: found)
    # What else would fit is searched for seconds.
    monkeypatch.setattr(memory_guard, "find_fit", lambda *args, **options: Fit(0, 0, (), None))
    for name in ("held_bytes", "peak_memory_bytes"):
        monkeypatch.setattr(memory_guard, name, lambda device: 0)


def recipe(strategy: str = "fsdp", **changes: object) -> Recipe:
    values = {"model": "ftk://tiny", "data": "ftk://orders/train", "tuning": "full"}
    return Recipe.model_validate({**values, "parallel": {"processes": 2, "strategy": strategy}, **changes})


def guarded(
    monkeypatch: pytest.MonkeyPatch, asked: Recipe, free: int, *, on_machine: int = 10**12, force: bool = False
) -> tuple[Expectation, list[str]]:
    """What is said where a GPU has `free` bytes free; the context is taken as begun."""
    for module in (memory_guard, host_memory):
        monkeypatch.setattr(module, "free_bytes", lambda device: free if device.type == "cuda" else on_machine)
    said: list[str] = []
    ids = torch.zeros(1, 16, dtype=torch.long)
    weights = torch.ones(1, 16)
    batch = Batch(ids, ids, ids + 1, weights, weights > 0, False, 16, 1, (0,))
    group = SimpleNamespace(device=GPU, num_processes=2)
    return expect_memory(asked, lambda: batch, group, said.append, force=force), said


def whole_bytes() -> int:
    return 4 * estimate(question(recipe())).parameters


def test_a_whole_model_must_leave_room_for_its_largest_part(monkeypatch):
    """Loaded whole it would end, out of memory, while its shards are made."""
    embedding = 4 * question(recipe()).numbers.weights.embedding
    enough = round(whole_bytes() * MARGIN) + embedding + 1
    assert guarded(monkeypatch, recipe(), enough, force=True)[0].fits_whole
    assert not guarded(monkeypatch, recipe(), enough - 2, force=True)[0].fits_whole


def test_all_load_it_to_where_one_must(monkeypatch):
    monkeypatch.setattr(memory_guard, "_anywhere", lambda found, accelerator: True)
    found, said = guarded(monkeypatch, recipe(), 10**12, force=True)
    assert not found.fits_whole
    assert any("memory of this machine" in line for line in said)


@pytest.mark.parametrize("is_whole", [False, True])
def test_of_the_machine_is_asked_what_is_loaded_to_it(monkeypatch, is_whole):
    """What flash attention is proven with is never on the CPU."""
    changes = {"model": {"id": "ftk://tiny", "attention": "flash_attention_2"}} if is_whole else {}
    _, said = guarded(monkeypatch, recipe(**changes), whole_bytes() + 1, force=True)
    assert any("memory of this machine" in line for line in said) is not is_whole


@pytest.mark.parametrize(
    ("changes", "reason", "remedy"),
    [
        ({"model": {"id": "ftk://tiny", "attention": "flash_attention_2"}}, "flash_attention_2", "attention=sdpa"),
        ({"task": "preference", "data": "ftk://orders/preference"}, "the reference of task", "without a reference"),
    ],
)
def test_what_is_used_whole_before_its_shards_must_fit(monkeypatch, changes, reason, remedy):
    asked = recipe("fsdp_offload", **changes)
    with pytest.raises(SetupError, match=rf"{reason}.* needs the whole model on each GPU.*{remedy}.*--force"):
        guarded(monkeypatch, offloading_fits(monkeypatch, asked), whole_bytes() - 1)
    guarded(monkeypatch, asked, whole_bytes() + 1)


def offloading_fits(monkeypatch: pytest.MonkeyPatch, asked: Recipe) -> Recipe:
    """The recipe, where its step asks for so little that the model is what does not fit."""
    monkeypatch.setattr(Expectation, "lacks", lambda expectation, num_sharing: False)
    return asked


@pytest.mark.parametrize(("strategy", "times"), [("fsdp_offload", 4), ("fsdp", 4 + 2 + 4)])
def test_what_is_gathered_to_generate_must_fit_beside_shards(monkeypatch, strategy, times):
    """Whole weights of 4 bytes; without offloading half of them and of two states lie beside."""
    asked = offloading_fits(monkeypatch, recipe(strategy, **METRICS))
    needed = times * estimate(question(asked)).parameters
    message = r"evaluation.metrics gathers the whole model on each GPU.*Take evaluation.metrics=\[\] and .*ftk eval"
    with pytest.raises(SetupError, match=message):
        guarded(monkeypatch, asked, round(needed * 0.99))
    guarded(monkeypatch, asked, round(needed * 1.01))
    guarded(monkeypatch, recipe(strategy), round(needed * 0.99))
    notes = " ".join(estimate(question(asked)).notes)
    assert "gathers all weights" in notes
    assert "gathers all weights" not in " ".join(estimate(question(recipe(strategy))).notes)


@pytest.mark.parametrize(("on_machine", "told"), [(2 * 10**9, True), (2 * 10**9 - 1, False)])
def test_ways_out_tell_their_time_and_what_the_machine_must_have(monkeypatch, on_machine, told):
    """Two processes need twice as much of it; what it does not hold is not proposed."""
    (change,) = devices(recipe(), more=False)
    plan = Plan((change,), memory_guard.CONTEXT_BYTES + 10**6, 10**9, 2.5, (2.5,))
    monkeypatch.setattr(memory_guard, "find_fit", lambda *args, **options: Fit(0, 0, (plan,), None))
    with pytest.raises(SetupError) as caught:
        guarded(monkeypatch, recipe(), 10**6, on_machine=on_machine)
    way = "strategy=fsdp_offload (1 MB, 1 GB of the machine's memory for each process, 2.50 times as long)"
    assert (way in str(caught.value)) is told
    assert ("if more of that were free" in str(caught.value)) is not told
