"""Memory of a merge goes by its largest tensor, not by its models."""

import re
from pathlib import Path

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


def test_tensors_are_given_back_once_they_are_merged(tmp_path):
    names = [ModelName("a"), ModelName("b")]
    models = {}
    for name in names:
        tensors = {f"layers.{n}.weight": torch.ones(LAYER_BYTES // 4096, 1024) for n in range(NUM_LAYERS)}
        (tmp_path / name.id).mkdir()
        save_file(tensors, tmp_path / name.id / "model.safetensors")
        models[name] = OpenModel(name, Checkpoint(tmp_path / name.id), {})
    sources = tuple(Source(name, "here", parameters={"weight": 1.0}) for name in names)
    merge = Merge("linear", Linear(), (Module("default", (Slice(sources, "here"),), "here"),))
    planned = Planner(merge, models).tensors()
    samples = [mapped_bytes()]
    with ShardWriter(tmp_path, {one.name: one.spec for one in planned}, shard_bytes=10**9) as writer:
        merge_tensors(planned, Linear(), writer, seed=0, on_tensor=lambda number: samples.append(mapped_bytes()))
    assert len(samples) == NUM_LAYERS + 1
    # Two models' tensors that are merged, and two that are read ahead; 24 of each lie in the files.
    assert max(samples) - samples[0] < 6 * LAYER_BYTES
