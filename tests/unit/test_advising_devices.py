"""More devices, and shards in the machine's memory: what they cost by hand, and where they are proposed."""

from pathlib import Path

import pytest
from advising_recipe import asked, factor, total, write_recipe

from ftk.recipe.load import load_recipe
from ftk.runs.advising.change import Harm
from ftk.runs.advising.changes import ladders
from ftk.runs.advising.fit import MARGIN, find_fit
from ftk.runs.estimate import estimate, question

SPREAD = ("fsdp_8", "fsdp_offload_2", "fsdp_4")


@pytest.fixture
def llama_recipe(tmp_path: Path) -> Path:
    return write_recipe(tmp_path)


def test_more_devices_are_so_many_times_faster(llama_recipe):
    """Twice the devices take half the time; as many as before, each with a part of the model, the same."""
    words = ("parallel.processes=2", "tuning=full")
    assert factor(llama_recipe, "parallel.processes=4", *words) == 0.5
    assert factor(llama_recipe, "parallel.processes=2", *words) == 1.0
    assert factor(llama_recipe, "parallel.processes=4", "tuning=full") == 0.25


def test_offloading_costs_what_is_copied_and_updated(llama_recipe):
    """By hand for 1.487e9 weights, 2,048 tokens a pass, 16 passes of a step on two processes and 8 on four.

    A pass computes 2048 x (6 x 9.615e8 products + 6 x 2 x 2048 x 4096 of attention) = 1.202e13 operations. On two
    processes it copies 4 bytes a weight to the GPU twice and 4 back: 8.92e9 bytes, as long as 1.383e14 operations. A
    step adds 15 times at 12 bytes a weight, 1.338e11, and moves 16 + 2 x 8 for its update, 2.379e10: for each of its
    passes 9.851e9 bytes, as long as 1.271e14. That is 1 + (1.383e14 + 1.271e14) / 1.202e13. On four processes it is
    6.914e13 and (3.123e10 + 1.190e10) / 8 bytes, as long as 6.954e13, in half the time.
    """
    words = ("tuning=full", "parallel.processes=2", "parallel.strategy=fsdp", "training.micro_batch_size=1")

    def found(number: int, *overrides: str) -> float:
        before = asked(llama_recipe, *words, *overrides)
        steps = [step for step in ladders(before.recipe, on_gpu=True)["devices"] if step]
        pasted = (f"parallel.processes={number}", "parallel.strategy=fsdp_offload")
        change = next(step for step in steps if step.overrides == pasted)
        return change.slowdown(before, question(change.apply(before.recipe), numbers=before.numbers))

    assert found(2) == pytest.approx(23.07, abs=0.005)
    # Four have half the passes of a step, and half of all to copy, add and update.
    assert found(4) == pytest.approx(6.268, abs=0.0005)
    # Of what is offloaded already, more devices are so many times faster.
    assert found(4, "parallel.strategy=fsdp_offload") == 0.5


def test_offloading_is_proposed_where_it_alone_keeps_the_result(llama_recipe):
    """In a group that cannot grow: shards in the machine's memory, as much on each device as is told when pasted."""
    words = ("tuning=full", "parallel.processes=2", "parallel.strategy=fsdp")
    sparing = ("training.micro_batch_size=1", "training.activation_checkpointing=true", "training.loss_chunk=256")
    least = total(llama_recipe, *words, *sparing)
    offloaded = estimate(asked(llama_recipe, *words, *sparing, "parallel.strategy=fsdp_offload")).per_device
    assert offloaded.bytes.total * MARGIN < least
    fit = find_fit(asked(llama_recipe, *words), least, one_device=True)
    keeping = [plan for plan in fit.plans if plan.harm is Harm.NONE]
    assert keeping
    for plan in keeping:
        assert "parallel.strategy=fsdp_offload" in plan.overrides
        assert plan.slowdown > 1
        pasted = estimate(asked(llama_recipe, *words, *plan.overrides)).per_device
        assert (pasted.bytes.total, pasted.host) == (plan.total_bytes, plan.host_bytes)
        assert plan.total_bytes * MARGIN <= least
        assert plan.as_json()["host_bytes"] == plan.host_bytes > 0
    # Not for one process, and not on a CPU, whose memory is the machine's.
    alone = ladders(load_recipe(str(llama_recipe)).recipe, on_gpu=True, more_devices=False)
    assert alone["devices"] == (None,)
    assert ladders(asked(llama_recipe, *words).recipe, on_gpu=False)["devices"] == (None,)


def test_shards_are_proposed_before_their_offloading(llama_recipe):
    """Both on two, four and eight GPUs, which take less the more they are, and less where shards are offloaded."""
    before = asked(llama_recipe, "tuning=full")
    steps = [step for step in ladders(before.recipe, on_gpu=True)["devices"] if step]
    ways = [f"parallel.strategy={way}" for way in ("fsdp", "fsdp_offload") for _ in range(3)]
    assert [step.overrides[1] for step in steps] == ways
    totals = [total(llama_recipe, "tuning=full", *step.overrides) for step in steps]
    sharded, offloaded = totals[:3], totals[3:]
    assert sharded == sorted(sharded, reverse=True)
    assert offloaded == sorted(offloaded, reverse=True)
    assert all(less < more for less, more in zip(offloaded, sharded, strict=True))


def test_fewer_devices_with_offloading_stand_beside_more_without(llama_recipe):
    """Where eight shards fit, and four do not: two GPUs whose shards lie in the machine's memory are a way too."""
    sparing = ("tuning=full", "training.micro_batch_size=1", "training.activation_checkpointing=true")
    sparing += ("training.loss_chunk=256",)
    words = {name: (f"parallel.processes={name[-1]}", f"parallel.strategy={name[:-2]}") for name in SPREAD}
    eight, two, four = (total(llama_recipe, *sparing, *words[name]) for name in SPREAD)
    memory = round(max(eight, two) * MARGIN) + 1
    assert memory < four * MARGIN
    overrides = [plan.overrides for plan in find_fit(asked(llama_recipe, *sparing), memory).plans]
    assert words["fsdp_8"] in overrides
    assert words["fsdp_offload_2"] in overrides
    # More devices of what is offloaded already are no way of their own.
    assert not any(
        f"parallel.processes={number}" in one and words["fsdp_offload_2"][1] in one
        for one in overrides
        for number in (4, 8)
    )
