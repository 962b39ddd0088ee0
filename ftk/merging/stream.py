"""Models tensor by tensor: read from a folder of safetensors, written to shards, never whole in memory."""

import json
import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Self, TypeAlias

import torch
from torch import Tensor

from ftk.core.errors import ModelError
from ftk.core.file_hash import sha256
from ftk.core.weight_files import INDEX, WEIGHTS, weight_files, weight_map
from ftk.merging.safetensors_file import MappedFile, TensorPlace, TensorSpec, header_bytes, read_header
from ftk.merging.sequential_file import SequentialFile

_Item: TypeAlias = tuple[Tensor, Callable[[], None] | None]
"""A tensor to be written, and what to do when it has been."""


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
    """Writes tensors to safetensors files in a thread of its own.

    All tensors are known beforehand, so each file begins with its header and the tensors follow in their order.
    `write` waits while an earlier tensor is still waiting to be written, which bounds the memory.
    """

    def __init__(self, folder: Path, tensors: Mapping[str, TensorSpec], *, shard_bytes: int) -> None:
        """`tensors` are spread over files in the given order; a file is closed at `shard_bytes`, or at one tensor."""
        self._folder = folder
        shards = list(_shards(tensors, shard_bytes))
        self._shards = {_file_name(number, len(shards)): shard for number, shard in enumerate(shards)}
        self._specs = tensors
        self.names = tuple(name for shard in shards for name, _ in shard)
        """The order in which tensors are to be written: in each file wider dtypes first, else as given."""
        self._num_given = 0
        self._failure: BaseException | None = None
        self._queue: queue.Queue[_Item | None] = queue.Queue(maxsize=1)
        self._thread = threading.Thread(target=self._write_all, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            # What waits to be written is of no use any more.
            self._failure = self._failure or error
        self._queue.put(None)
        self._thread.join()
        if kind is not None:
            return
        self._raise_failure()
        if self._num_given < len(self.names):
            raise ValueError(f"{self.names[self._num_given]} and what follows it were never written")
        if len(self._shards) > 1:
            self._write_index()

    def write(self, name: str, tensor: Tensor, *, then: Callable[[], None] | None = None) -> None:
        """Have the next of `names` written; it must not change any more. `then` is called when it has been.

        Raises:
            OSError: an earlier tensor could not be written.
        """
        self._raise_failure()
        spec = self._specs[name]
        if name != self.names[self._num_given]:
            raise ValueError(f"{name} comes before {self.names[self._num_given]}, which is next in the file")
        if tensor.dtype != spec.dtype or tuple(tensor.shape) != spec.shape:
            raise ValueError(f"{name} is {tensor.dtype} {tuple(tensor.shape)}, planned {spec.dtype} {spec.shape}")
        self._num_given += 1
        self._queue.put((tensor, then))

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _write_all(self) -> None:
        coming = iter(self._queue.get, None)
        try:
            for name, shard in self._shards.items():
                if not self._write_shard(self._folder / name, shard, coming):
                    return
        except BaseException as error:
            self._failure = error
        for _ in coming:
            # Whoever writes is not to wait for a queue that nobody empties.
            continue

    @staticmethod
    def _write_shard(path: Path, shard: Sequence[tuple[str, TensorSpec]], coming: Iterator[_Item]) -> bool:
        """Whether all of its tensors came."""
        with closing(SequentialFile(path)) as file:
            file.write(torch.frombuffer(bytearray(header_bytes(shard)), dtype=torch.uint8))
            for _ in shard:
                item = next(coming, None)
                if item is None:
                    return False
                tensor, then = item
                file.write(tensor.contiguous().reshape(-1).view(torch.uint8))
                # The memory is wanted for the next one, which may be long in coming.
                del item, tensor
                if then is not None:
                    then()
            file.finish()
        return True

    def _write_index(self) -> None:
        weight_map = {name: file for file, shard in self._shards.items() for name, _ in shard}
        index = {"metadata": {"total_size": sum(spec.num_bytes for spec in self._specs.values())}}
        (self._folder / INDEX).write_text(json.dumps({**index, "weight_map": weight_map}, indent=2) + "\n")


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
