"""Every allocation of a stretch of torch code, followed from the operation that makes it to its release.

Works on real tensors and on fake ones alike: what is followed is the life of storages, whether memory is behind them
or not.
"""

import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


@dataclass(frozen=True, slots=True)
class Peak:
    """The moment at which the most bytes were held."""

    total: int
    by_kind: Mapping[str, int]
    moment: str
    """What the code was at, as `Follow.moment` was told."""


@dataclass(slots=True)
class _Block:
    """One storage while it lives."""

    num_bytes: int
    kind: str
    alive: "weakref.ref[torch.UntypedStorage]"


@dataclass
class Follow(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up the bytes of all storages that are alive, by kind; enter it as a context.

    Source: the same life of storages is what torch.distributed._tools.mem_tracker follows; that the count is the
    allocator's is tested against the profiler's memory events.
    """

    size: Callable[[int], int] = lambda num_bytes: num_bytes
    """Bytes that an allocator takes for so many."""
    kind: str = "other"
    """What is made from here on."""
    moment: str = ""
    """What the code is at from here on."""
    _blocks: dict[int, _Block] = field(default_factory=dict)
    _held: Counter[str] = field(default_factory=Counter)
    _total: int = 0
    _peaks: dict[str, Peak] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.take(tree_leaves(result))
        return result

    @property
    def total(self) -> int:
        """Bytes held now."""
        return self._total

    @property
    def held(self) -> Mapping[str, int]:
        """Bytes held now, by kind."""
        return dict(self._held)

    @property
    def peak(self) -> Peak:
        """The most that was held since the last `restart`."""
        return max(self._peaks.values(), key=lambda peak: peak.total)

    @property
    def peaks(self) -> Mapping[str, Peak]:
        """The most that was held at each moment since the last `restart`."""
        return dict(self._peaks)

    def restart(self) -> None:
        """Look for peaks from here on."""
        self._peaks = {self.moment: self._now()}

    def take(self, values: Iterable[Any], kind: str | None = None) -> None:
        """Count tensors among `values`; with `kind`, those that are known change to it."""
        for value in values:
            if isinstance(value, Tensor):
                for storage in _storages(value):
                    self._take(storage, kind)
        peak = self._peaks.get(self.moment)
        if peak is None or self._total > peak.total:
            self._peaks[self.moment] = self._now()

    def _take(self, storage: torch.UntypedStorage, kind: str | None) -> None:
        key = storage._cdata
        block = self._blocks.get(key)
        if block is not None and block.alive() is storage:
            if kind is not None:
                self._held[block.kind] -= block.num_bytes
                self._held[kind] += block.num_bytes
                block.kind = kind
            return
        num_bytes = self.size(storage.nbytes())
        kind = kind or self.kind
        self._blocks[key] = _Block(num_bytes, kind, weakref.ref(storage, lambda _: self._release(key)))
        self._held[kind] += num_bytes
        self._total += num_bytes

    def _release(self, key: int) -> None:
        block = self._blocks.pop(key)
        self._held[block.kind] -= block.num_bytes
        self._total -= block.num_bytes

    def _now(self) -> Peak:
        return Peak(self._total, {kind: held for kind, held in self._held.items() if held}, self.moment)


def _storages(tensor: Tensor) -> list[torch.UntypedStorage]:
    """The storages of a tensor; a sparse one has several, and is not followed."""
    return [tensor.untyped_storage()] if tensor.layout == torch.strided else []
