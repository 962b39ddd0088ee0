"""Memory of a merge goes by its largest tensor, not by its models."""

import re
from concurrent.futures import Executor, Future
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ftk.merging.configuration import Merge, ModelName, Module, Slice, Source
from ftk.merging.merge import merge_tensors
from ftk.merging.methods.linear import Linear
from ftk.merging.open_model import OpenModel
from ftk.merging.plan import Planner
from ftk.merging.stream import Checkpoint, ShardWriter

NUM_LAYERS, LAYER_BYTES = 24, 4 * 2**20


def mapped_bytes() -> int:
    """Of files, in this process's memory."""
    return 1024 * int(re.search(r"RssFile:\s*(\d+)", Path("/proc/self/status").read_text())[1])


class AtOnce(Executor):
    """Does what it is given while it is given it."""

    def __init__(self, max_workers: int) -> None:
        assert max_workers == 1

    def submit(self, work, /, *arguments):
        done = Future()
        done.set_result(work(*arguments))
        return done


@pytest.fixture
def planned(tmp_path):
    """A mean of two models, each tensor of which reads two layers' bytes."""
    names = [ModelName("a"), ModelName("b")]
    models = {}
    for name in names:
        tensors = {f"layers.{n}.weight": torch.ones(LAYER_BYTES // 4096, 1024) for n in range(NUM_LAYERS)}
        (tmp_path / name.id).mkdir()
        save_file(tensors, tmp_path / name.id / "model.safetensors")
        models[name] = OpenModel(name, Checkpoint(tmp_path / name.id), {})
    sources = tuple(Source(name, "here", parameters={"weight": 1.0}) for name in names)
    merge = Merge("linear", Linear(), (Module("default", (Slice(sources, "here"),), "here"),))
    return Planner(merge, models).tensors()


def samples_of(planned, folder: Path, sample) -> list[int]:
    """What `sample` tells after each tensor."""
    samples = []
    with ShardWriter(folder, {one.name: one.spec for one in planned}, shard_bytes=10**9) as writer:
        merge_tensors(planned, Linear(), writer, seed=0, on_tensor=lambda number: samples.append(sample()))
    assert len(samples) == NUM_LAYERS
    return samples


def test_tensors_are_given_back_once_they_are_merged(planned, tmp_path, monkeypatch):
    monkeypatch.setattr("ftk.merging.merge.READ_BYTES", 4 * LAYER_BYTES)
    before = mapped_bytes()
    # Two models' tensors that are merged, and two that are read ahead; 24 of each lie in the files.
    assert max(samples_of(planned, tmp_path, mapped_bytes)) - before < 6 * LAYER_BYTES


@pytest.mark.parametrize(("read_bytes", "num_held"), [(0, 2), (4 * LAYER_BYTES, 2), (8 * LAYER_BYTES, 4)])
def test_tensors_are_read_ahead_up_to_a_size_and_one_at_least(planned, tmp_path, monkeypatch, read_bytes, num_held):
    read = []
    monkeypatch.setattr("ftk.merging.merge.READ_BYTES", read_bytes)
    monkeypatch.setattr("ftk.merging.merge.ThreadPoolExecutor", AtOnce)
    original = Checkpoint.read
    monkeypatch.setattr(Checkpoint, "read", lambda self, name: read.append(name) or original(self, name))
    num_read = samples_of(planned, tmp_path, lambda: len(read) // 2)
    # The one that is merged is among those that are held.
    assert num_read == [min(NUM_LAYERS, number + num_held - 1) for number in range(1, NUM_LAYERS + 1)]
