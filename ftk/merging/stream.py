"""Models tensor by tensor: read from a folder of safetensors, written to shards, never whole in memory."""

import json
import os
import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor

from ftk.core.errors import ModelError
from ftk.core.file_hash import sha256
from ftk.core.weight_files import INDEX, WEIGHTS, weight_files, weight_map
from ftk.merging.safetensors_file import MappedFile, TensorPlace, TensorSpec, header_bytes, read_header

SYNCED_AT_ONCE_BYTES = 128 * 2**20
"""Left alone, the kernel starts to write to disk half a minute later, and the sync at the end waits for all of it."""


class Checkpoint:
    """The weights in a model's or adapter's folder: names, shapes and dtypes at once, values on demand."""

    def __init__(self, folder: Path) -> None:
        """Read the headers.

        Raises:
            ModelError: there are no weights as safetensors, or a file is missing, broken or cut short.
        """
        self.folder = folder
        self.files = weight_files(folder)
        self.tensors: dict[str, TensorPlace] = {}
        for file in self.files:
            for name, place in read_header(file).items():
                if name in self.tensors:
                    raise ModelError(f"{folder} has {name} twice: in {self.tensors[name].file.name} and {file.name}")
                self.tensors[name] = place
        self._mapped = {file: MappedFile(file) for file in self.files}
        _require_indexed(folder, self.tensors)

    @property
    def num_bytes(self) -> int:
        """Of all tensors."""
        return sum(place.num_bytes for place in self.tensors.values())

    def read(self, name: str) -> Tensor:
        """A view of the file, which must not be written to. Its bytes come from disk when they are first used."""
        place = self.tensors[name]
        return self._mapped[place.file].tensor(place)

    def prefetch(self, name: str) -> None:
        """Ask the kernel to read a tensor from disk, without waiting for it."""
        place = self.tensors[name]
        self._mapped[place.file].prefetch(place)

    def release(self, name: str) -> None:
        """Give back the memory of a tensor that was read."""
        place = self.tensors[name]
        self._mapped[place.file].release(place)

    def require_finite(self, name: str, tensor: Tensor) -> None:
        """Make sure that no value is NaN or infinite.

        Raises:
            ModelError: one is; the tensor, the first such element and their number are named.
        """
        # A sum is NaN or infinite where a term is, and costs an eighth of looking at each.
        if not tensor.is_floating_point() or tensor.numel() == 0 or bool(tensor.sum().isfinite()):
            return
        bad = ~tensor.isfinite()
        count = int(bad.sum())
        if count == 0:
            return
        first = bad.nonzero()[0].tolist()
        value = float(tensor[tuple(first)])
        raise ModelError(
            f"{name} in {self.tensors[name].file} holds {count:,} values that are NaN or infinite, the first {value} "
            f"at {first}. Such a model is broken: take it from an earlier checkpoint, or leave it out"
        )

    def hash(self) -> dict[str, str]:
        """SHA-256 of each file, by its name."""
        return {file.name: sha256(file) for file in self.files}

    def close(self) -> None:
        """Close the files."""
        for mapped in self._mapped.values():
            mapped.close()


def _require_indexed(folder: Path, tensors: Mapping[str, TensorPlace]) -> None:
    index = folder / INDEX
    if not index.exists():
        return
    for name, file in weight_map(index).items():
        if name not in tensors:
            raise ModelError(f"{folder / file} lacks {name}, which {INDEX} says is in it. Get both again")


class ShardWriter:
    """Writes tensors to safetensors files in a thread of its own, and syncs them to disk in another.

    All tensors are known beforehand, so each file's header is written first and each tensor goes straight to its
    place. `write` waits while an earlier tensor is still waiting to be written, which bounds the memory.
    """

    def __init__(self, folder: Path, tensors: Mapping[str, TensorSpec], *, shard_bytes: int) -> None:
        """`tensors` are spread over files in the given order; a file is closed at `shard_bytes`, or at one tensor."""
        self._folder = folder
        self._shards = list(_shards(tensors, shard_bytes))
        self._total_bytes = sum(spec.num_bytes for spec in tensors.values())
        self._files = [_file_name(number, len(self._shards)) for number in range(len(self._shards))]
        self._places: dict[str, tuple[int, int, TensorSpec]] = {}
        self._descriptors: dict[int, int] = {}
        self._unwritten = [len(shard) for shard in self._shards]
        self._unsynced_bytes = 0
        self._failure: BaseException | None = None
        self._queue: queue.Queue[tuple[str, Tensor, Callable[[], None] | None] | None] = queue.Queue(maxsize=1)
        self._to_sync: queue.Queue[tuple[int, bool] | None] = queue.Queue()
        for number, shard in enumerate(self._shards):
            start = len(header_bytes(shard))
            for name, spec in shard:
                self._places[name] = (number, start, spec)
                start += spec.num_bytes
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._write_all, self._sync_all)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            # What waits to be written is of no use any more.
            self._failure = self._failure or error
        self._queue.put(None)
        self._threads[0].join()
        self._to_sync.put(None)
        self._threads[1].join()
        for descriptor in self._descriptors.values():
            os.close(descriptor)
        if kind is not None:
            return
        self._raise_failure()
        left = [name for name, number in zip(self._files, self._unwritten, strict=True) if number]
        if left:
            raise ValueError(f"tensors of {', '.join(left)} were never written")
        if len(self._files) > 1:
            self._write_index()

    def write(self, name: str, tensor: Tensor, *, then: Callable[[], None] | None = None) -> None:
        """Have a tensor written; it must not change any more. `then` is called when it has been.

        Raises:
            OSError: an earlier tensor could not be written.
        """
        self._raise_failure()
        spec = self._places[name][2]
        if tensor.dtype != spec.dtype or tuple(tensor.shape) != spec.shape:
            raise ValueError(f"{name} is {tensor.dtype} {tuple(tensor.shape)}, planned {spec.dtype} {spec.shape}")
        self._queue.put((name, tensor, then))

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _write_all(self) -> None:
        while (item := self._queue.get()) is not None:
            if self._failure is not None:
                continue
            name, tensor, then = item
            del item
            try:
                self._write(name, tensor)
                if then is not None:
                    then()
            except BaseException as error:
                self._failure = error
            del tensor, then

    def _write(self, name: str, tensor: Tensor) -> None:
        number, start, spec = self._places[name]
        descriptor = self._descriptor(number)
        if spec.num_bytes:
            raw: Any = tensor.contiguous().reshape(-1).view(torch.uint8).numpy()
            _write_at(descriptor, memoryview(raw), start)
        self._unwritten[number] -= 1
        self._unsynced_bytes += spec.num_bytes
        is_complete = self._unwritten[number] == 0
        if is_complete or self._unsynced_bytes >= SYNCED_AT_ONCE_BYTES:
            self._unsynced_bytes = 0
            self._to_sync.put((number, is_complete))

    def _descriptor(self, number: int) -> int:
        if number not in self._descriptors:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
            self._descriptors[number] = os.open(self._folder / self._files[number], flags, 0o666)
            _write_at(self._descriptors[number], memoryview(header_bytes(self._shards[number])), 0)
        return self._descriptors[number]

    def _sync_all(self) -> None:
        while (item := self._to_sync.get()) is not None:
            if self._failure is not None:
                continue
            number, is_complete = item
            try:
                os.fdatasync(self._descriptors[number])
                if is_complete:
                    os.close(self._descriptors.pop(number))
            except OSError as error:
                self._failure = error

    def _write_index(self) -> None:
        weight_map = {name: self._files[number] for name, (number, _, _) in self._places.items()}
        index = {"metadata": {"total_size": self._total_bytes}, "weight_map": weight_map}
        (self._folder / INDEX).write_text(json.dumps(index, indent=2) + "\n")


def _shards(tensors: Mapping[str, TensorSpec], shard_bytes: int) -> Iterator[Sequence[tuple[str, TensorSpec]]]:
    """Files of at most `shard_bytes`; within one, wider dtypes first, so that every tensor is aligned."""
    shard: list[tuple[str, TensorSpec]] = []
    filled = 0
    for name, spec in tensors.items():
        if shard and filled + spec.num_bytes > shard_bytes:
            yield _aligned(shard)
            shard, filled = [], 0
        shard.append((name, spec))
        filled += spec.num_bytes
    if shard:
        yield _aligned(shard)


def _aligned(shard: list[tuple[str, TensorSpec]]) -> list[tuple[str, TensorSpec]]:
    return sorted(shard, key=lambda item: -item[1].dtype.itemsize)


def _file_name(number: int, num_files: int) -> str:
    return WEIGHTS if num_files == 1 else f"model-{number + 1:05d}-of-{num_files:05d}.safetensors"


def _write_at(descriptor: int, data: memoryview, start: int) -> None:
    while data:
        # One call writes at most 2 GiB.
        count = os.pwrite(descriptor, data, start)
        data, start = data[count:], start + count
