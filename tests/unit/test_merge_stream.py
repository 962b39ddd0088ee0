"""Tensors in and out of safetensors files: equal to what safetensors reads, and every broken file told."""

import hashlib
import json
import os
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ftk.core.errors import ModelError
from ftk.merging.safetensors_file import TensorSpec, header_bytes, read_header
from ftk.merging.stream import Checkpoint, ShardWriter

TENSORS = {
    "embed.weight": torch.randn(7, 4).bfloat16(),
    "layers.0.weight": torch.randn(3, 5),
    "layers.0.half": torch.randn(3).half(),
    "steps": torch.arange(5),
    "mask": torch.tensor([True, False, True]),
    "scalar": torch.tensor(2.5),
    "empty": torch.empty(0, 4),
    "double": torch.randn(2).double(),
}


def specs(tensors: dict[str, torch.Tensor]) -> dict[str, TensorSpec]:
    return {name: TensorSpec(tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}


def write(folder: Path, tensors: dict[str, torch.Tensor], *, shard_bytes: int = 10**9) -> None:
    folder.mkdir(exist_ok=True)
    with ShardWriter(folder, specs(tensors), shard_bytes=shard_bytes) as writer:
        for name in writer.names:
            writer.write(name, tensors[name])


@pytest.fixture
def broken(tmp_path):
    """A folder with one file, to be broken."""
    save_file(TENSORS, tmp_path / "model.safetensors")
    return tmp_path


def test_what_is_written_is_what_safetensors_reads(tmp_path):
    write(tmp_path / "m", TENSORS)
    assert sorted(path.name for path in (tmp_path / "m").iterdir()) == ["model.safetensors"]
    found = load_file(tmp_path / "m" / "model.safetensors")
    assert found.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert found[name].dtype == tensor.dtype
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=0)
    with safe_open(tmp_path / "m" / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_what_safetensors_writes_is_read_whatever_its_alignment(tmp_path):
    save_file(TENSORS, tmp_path / "model.safetensors")
    checkpoint = Checkpoint(tmp_path)
    for name, tensor in TENSORS.items():
        torch.testing.assert_close(checkpoint.read(name), tensor, rtol=0, atol=0)
    # A header of odd length, as early versions wrote.
    content = (tmp_path / "model.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")
    shifted = (length + 1).to_bytes(8, "little") + content[8 : 8 + length] + b" " + content[8 + length :]
    (tmp_path / "model.safetensors").write_bytes(shifted)
    for name, tensor in TENSORS.items():
        torch.testing.assert_close(Checkpoint(tmp_path).read(name), tensor, rtol=0, atol=0)


def test_every_tensor_is_aligned(tmp_path):
    write(tmp_path / "m", TENSORS)
    for place in read_header(tmp_path / "m" / "model.safetensors").values():
        assert place.start % place.dtype.itemsize == 0


def test_shards_hold_no_more_than_asked_and_have_an_index(tmp_path):
    tensors = {f"t{number}": torch.full((10,), float(number)) for number in range(10)}
    tensors["large"] = torch.zeros(100)
    write(tmp_path / "m", tensors, shard_bytes=100)
    index = json.loads((tmp_path / "m" / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == 800
    assert index["weight_map"].keys() == tensors.keys()
    assert sorted(set(index["weight_map"].values())) == [f"model-{n:05d}-of-00006.safetensors" for n in range(1, 7)]
    for file in set(index["weight_map"].values()):
        found = load_file(tmp_path / "m" / file)
        assert len(found) == 1 or sum(tensor.nbytes for tensor in found.values()) <= 100
    checkpoint = Checkpoint(tmp_path / "m")
    for name, tensor in tensors.items():
        assert torch.equal(checkpoint.read(name), tensor)


def test_a_tensor_may_be_released_and_read_again(tmp_path):
    write(tmp_path / "m", {"a": torch.arange(100_000.0), "b": torch.arange(100_000.0) + 1})
    checkpoint = Checkpoint(tmp_path / "m")
    first = checkpoint.read("a")
    checkpoint.release("b")
    checkpoint.release("a")
    assert torch.equal(first, torch.arange(100_000.0))


def test_the_files_cannot_be_changed_through_a_tensor(tmp_path):
    write(tmp_path / "m", {"a": torch.zeros(4)})
    Checkpoint(tmp_path / "m").read("a").fill_(1)
    assert torch.equal(Checkpoint(tmp_path / "m").read("a"), torch.zeros(4))


def test_a_hash_is_of_the_file_and_a_link_into_the_hubs_cache_is_called_after_it(tmp_path):
    write(tmp_path / "m", TENSORS)
    expected = hashlib.sha256((tmp_path / "m" / "model.safetensors").read_bytes()).hexdigest()
    assert Checkpoint(tmp_path / "m").hash() == {"model.safetensors": expected}
    (tmp_path / "m" / "model.safetensors").rename(tmp_path / ("a" * 64))
    (tmp_path / "m" / "model.safetensors").symlink_to(tmp_path / ("a" * 64))
    assert Checkpoint(tmp_path / "m").hash() == {"model.safetensors": "a" * 64}


@pytest.mark.parametrize(("value", "shown"), [(float("nan"), "nan"), (float("inf"), "inf"), (float("-inf"), "-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_nan_and_infinity_are_named(tmp_path, value, shown, dtype):
    tensor = torch.zeros(3, 4, dtype=dtype)
    tensor[1, 2] = value
    write(tmp_path / "m", {"a": tensor})
    checkpoint = Checkpoint(tmp_path / "m")
    with pytest.raises(
        ModelError, match=rf"a in .*holds 1 values that are NaN or infinite, the first {shown} at \[1, 2\]"
    ):
        checkpoint.require_finite("a", checkpoint.read("a"))


def test_a_sum_that_overflows_is_no_infinity(tmp_path):
    large = torch.full((100,), 60000.0, dtype=torch.float16)
    assert not large.sum().isfinite()
    write(tmp_path / "m", {"a": large})
    Checkpoint(tmp_path / "m").require_finite("a", large)


@pytest.mark.parametrize("size", [0, 4, 20, -1])
def test_a_file_that_is_cut_short(broken, size):
    file = broken / "model.safetensors"
    os.truncate(file, size if size >= 0 else file.stat().st_size - 1)
    with pytest.raises(ModelError, match=r"model\.safetensors is broken, or was not copied or downloaded to its end"):
        Checkpoint(broken)


def test_a_file_that_is_something_else(broken):
    (broken / "model.safetensors").write_bytes((20).to_bytes(8, "little") + b"x" * 100)
    with pytest.raises(ModelError, match="its header is no safetensors header"):
        Checkpoint(broken)
    (broken / "model.safetensors").write_bytes(header_bytes([])[:8] + b"[]" + b" " * 200)
    with pytest.raises(ModelError, match="is broken"):
        Checkpoint(broken)


def test_a_shard_that_is_missing_or_lacks_a_tensor(tmp_path):
    folder = tmp_path / "m"
    write(folder, {"a": torch.zeros(10), "b": torch.zeros(10)}, shard_bytes=40)
    first = folder / "model-00001-of-00002.safetensors"
    save_file({"other": torch.zeros(1)}, first)
    with pytest.raises(ModelError, match=r"model-00001-of-00002\.safetensors lacks a, which"):
        Checkpoint(folder)
    first.unlink()
    with pytest.raises(ModelError, match=r"lacks 1 of 2 files of weights: model-00001-of-00002\.safetensors"):
        Checkpoint(folder)


def test_a_pickle_is_refused(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ModelError, match="as a pickle only"):
        Checkpoint(tmp_path)
    (tmp_path / "pytorch_model.bin").unlink()
    with pytest.raises(ModelError, match="has no weights"):
        Checkpoint(tmp_path)


def test_a_writer_tells_what_it_was_not_given(tmp_path):
    planned = specs({"a": torch.zeros(2), "b": torch.zeros(2)})
    with (
        pytest.raises(ValueError, match="never written"),
        ShardWriter(tmp_path, planned, shard_bytes=100) as writer,
    ):
        writer.write("a", torch.zeros(2))
    (tmp_path / "b").mkdir()
    with (
        pytest.raises(ValueError, match=r"planned torch\.float32"),
        ShardWriter(tmp_path / "b", planned, shard_bytes=100) as writer,
    ):
        writer.write("a", torch.zeros(3))
    (tmp_path / "c").mkdir()
    with (
        pytest.raises(ValueError, match="b comes before a, which is next"),
        ShardWriter(tmp_path / "c", planned, shard_bytes=100) as writer,
    ):
        writer.write("b", torch.zeros(2))


def test_a_write_that_fails_is_told_and_does_not_hang(tmp_path):
    planned = specs({name: torch.zeros(2) for name in "abcdef"})

    def write_all() -> None:
        with ShardWriter(tmp_path / "missing", planned, shard_bytes=8) as writer:
            for name in planned:
                writer.write(name, torch.zeros(2))

    with pytest.raises(FileNotFoundError):
        write_all()
