"""One safetensors file: its header, and its tensors as views of the mapped file.

Layout: 8 bytes with the header's length, the header as JSON, the tensors' bytes without gaps.
Source: huggingface.co/docs/safetensors, "Format".
"""

import json
import math
import mmap
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ftk.core.errors import ModelError

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "U16": torch.uint16,
    "U32": torch.uint32,
    "U64": torch.uint64,
    "BOOL": torch.bool,
    "C64": torch.complex64,
}
"""What the format calls them."""
NAMES = {dtype: name for name, dtype in DTYPES.items()}
LENGTH_BYTES = 8
MAX_HEADER_BYTES = 100_000_000
"""The format's own limit."""
NO_RESERVE = 0x4000 if sys.platform == "linux" else 0
"""Linux's MAP_NORESERVE, which Python names from 3.13 on."""


@dataclass(frozen=True)
class TensorSpec:
    """What a tensor is, without its values."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def num_elements(self) -> int:
        return math.prod(self.shape)

    @property
    def num_bytes(self) -> int:
        return self.num_elements * self.dtype.itemsize


@dataclass(frozen=True)
class TensorPlace(TensorSpec):
    """A tensor that lies in a file."""

    file: Path
    start: int
    """First byte, counted from the start of the file."""


def read_header(file: Path) -> dict[str, TensorPlace]:
    """Where each tensor of the file is. Its values are not read.

    Raises:
        ModelError: the file is broken or cut short.
    """
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(LENGTH_BYTES), "little")
            if size < LENGTH_BYTES or length > min(size - LENGTH_BYTES, MAX_HEADER_BYTES):
                raise _broken(file, f"it has {size:,} bytes, which is less than its header")
            header: dict[str, Any] = json.loads(stream.read(length))
            header.pop("__metadata__", None)
            places = {name: _place(file, entry, LENGTH_BYTES + length) for name, entry in header.items()}
    except OSError as error:
        raise ModelError(f"{file} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _broken(file, "its header is no safetensors header") from error
    needed = max((place.start + place.num_bytes for place in places.values()), default=0)
    if needed > size:
        raise _broken(file, f"it has {size:,} bytes, and its header speaks of {needed:,}")
    return places


def _place(file: Path, entry: Mapping[str, Any], start_of_data: int) -> TensorPlace:
    start, end = entry["data_offsets"]
    place = TensorPlace(DTYPES[entry["dtype"]], tuple(entry["shape"]), file, start_of_data + start)
    if end - start != place.num_bytes or start < 0:
        raise ValueError("offsets and shape do not agree")
    return place


def _broken(file: Path, why: str) -> ModelError:
    return ModelError(f"{file} is broken, or was not copied or downloaded to its end: {why}. Get it again")


def header_bytes(tensors: Sequence[tuple[str, TensorSpec]]) -> bytes:
    """The start of a file in which the tensors lie one after another, up to their first byte."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    start = 0
    for name, spec in tensors:
        header[name] = {
            "dtype": NAMES[spec.dtype],
            "shape": list(spec.shape),
            "data_offsets": [start, start + spec.num_bytes],
        }
        start += spec.num_bytes
    text = json.dumps(header, separators=(",", ":")).encode()
    # Spaces up to a multiple of 8, so that the tensors are aligned.
    text += b" " * (-len(text) % LENGTH_BYTES)
    return len(text).to_bytes(LENGTH_BYTES, "little") + text


class MappedFile:
    """A file whose tensors are views of its mapping: memory that the kernel reads on use and may take back."""

    def __init__(self, file: Path) -> None:
        self._file = file

    @cached_property
    def _descriptor(self) -> int:
        return os.open(self._file, os.O_RDONLY)

    @cached_property
    def _map(self) -> mmap.mmap:
        # Private, so that torch takes it without a warning and nothing written to a tensor reaches the file. Not
        # reserved, since a file may be larger than the memory.
        protection = mmap.PROT_READ | mmap.PROT_WRITE
        return mmap.mmap(self._descriptor, 0, flags=mmap.MAP_PRIVATE | NO_RESERVE, prot=protection)

    def tensor(self, place: TensorPlace) -> Tensor:
        """The tensor, not to be written to."""
        if place.num_elements == 0:
            return torch.empty(place.shape, dtype=place.dtype)
        if place.start % place.dtype.itemsize:
            # Files of early versions are not aligned.
            raw = torch.frombuffer(self._map, dtype=torch.uint8, count=place.num_bytes, offset=place.start)
            return raw.clone().view(place.dtype).view(place.shape)
        flat = torch.frombuffer(self._map, dtype=place.dtype, count=place.num_elements, offset=place.start)
        return flat.view(place.shape)

    def prefetch(self, place: TensorPlace) -> None:
        """Ask the kernel to read the tensor from disk, without waiting for it."""
        if sys.platform == "linux":
            os.posix_fadvise(self._descriptor, place.start, place.num_bytes, os.POSIX_FADV_WILLNEED)

    def release(self, place: TensorPlace) -> None:
        """Give back the memory of a tensor; one that is used again is read again."""
        first = place.start - place.start % mmap.PAGESIZE
        if place.num_bytes:
            self._map.madvise(mmap.MADV_DONTNEED, first, place.start + place.num_bytes - first)

    def close(self) -> None:
        """Close the file. Tensors that are still around keep the mapping."""
        if "_descriptor" in self.__dict__:
            os.close(self.__dict__.pop("_descriptor"))
        self.__dict__.pop("_map", None)
