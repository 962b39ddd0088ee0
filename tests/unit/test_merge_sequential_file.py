"""A file written past the kernel's cache, or through it, has the bytes that it was given."""

import errno
import fcntl
import os
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ftk.merging import sequential_file
from ftk.merging.sequential_file import SequentialFile

BLOCK = 4096


@pytest.fixture(autouse=True)
def _small_buffer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequential_file, "BUFFER_BYTES", 4 * BLOCK)
    monkeypatch.setattr(sequential_file, "SYNCED_AT_ONCE_BYTES", 8 * BLOCK)


def parts(sizes: Sequence[int]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(256, (size,), dtype=torch.uint8, generator=generator) for size in sizes]


def write(path: Path, sizes: Sequence[int]) -> bytes:
    """Write parts of these sizes; what was to be written."""
    with closing(SequentialFile(path)) as file:
        for part in parts(sizes):
            file.write(part)
        file.finish()
    return b"".join(part.numpy().tobytes() for part in parts(sizes))


@pytest.mark.parametrize(
    "sizes", [[], [0], [1], [4 * BLOCK], [4 * BLOCK - 1, 2], [100, 9 * BLOCK, 7], [8 * BLOCK, 4 * BLOCK]]
)
def test_every_byte_arrives(sizes: list[int], tmp_path: Path) -> None:
    assert write(tmp_path / "file", sizes) == (tmp_path / "file").read_bytes()


def test_a_file_system_without_direct_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real: Callable[..., int] = fcntl.fcntl

    def refuse(descriptor: int, command: int, flags: int = 0) -> int:
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, "Invalid argument")
        return real(descriptor, command, flags)

    synced: list[int] = []
    monkeypatch.setattr(fcntl, "fcntl", refuse)
    monkeypatch.setattr(os, "fdatasync", synced.append)
    assert write(tmp_path / "file", [33 * BLOCK + 5]) == (tmp_path / "file").read_bytes()
    # Every 8 of 33 blocks, and at the end.
    assert len(synced) == 5


def test_a_disk_whose_blocks_are_larger_than_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwrite
    refused: list[int] = []

    def refuse(descriptor: int, data: memoryview, start: int) -> int:
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT:
            refused.append(start)
            raise OSError(errno.EINVAL, "Invalid argument")
        # And no more at once than this.
        return real(descriptor, data[: 3 * BLOCK + 1], start)

    monkeypatch.setattr(os, "pwrite", refuse)
    assert write(tmp_path / "file", [9 * BLOCK + 5]) == (tmp_path / "file").read_bytes()
    assert refused == [0]


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, data: memoryview, start: int) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path / "file", [9 * BLOCK])
    with pytest.raises(FileExistsError):
        SequentialFile(tmp_path / "file")
