"""Adapters folded into their base, one tensor at a time."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ftk.core.errors import ModelError
from ftk.merging.adapters.adapter import Adapter
from ftk.merging.adapters.architecture import Architecture, Piece
from ftk.merging.adapters.base_weights import BaseWeights
from ftk.merging.adapters.changes import LowRank, Replace, ReplaceRows, apply_all
from ftk.merging.adapters.fitting import ANOTHER_BASE, Changes, changes_of
from ftk.merging.safetensors_file import TensorSpec

Combine = Callable[[str, Sequence[Tensor], Sequence[float]], Tensor]
"""Name, updates of a tensor and their weights to one update, all in float32."""


@dataclass(frozen=True)
class Fold:
    """What a merged model's tensors are, and each of them on demand."""

    base: BaseWeights
    architecture: Architecture
    adapters: Sequence[Adapter]
    weights: Sequence[float] = (1.0,)
    combine: Combine | None = None
    """How updates of several adapters, or one that is weighted, become one; None folds the only adapter exactly."""

    @cached_property
    def specs(self) -> dict[str, TensorSpec]:
        """Names on disk, dtypes and shapes of the merged model, the base's order first.

        Raises:
            ModelError: an adapter does not fit the base.
        """
        # A tied parameter is read from what it is tied to, even where the base's files hold it a second time.
        tied = self.architecture.tied
        specs = {name: spec for name, spec in self.base.specs.items() if self._piece(name).parameter not in tied}
        for name, source in self.untied.items():
            specs[name] = specs[self._disk_name(source)]
        for name in specs:
            specs[name] = TensorSpec(specs[name].dtype, self._new_shape(name, specs[name].shape))
        return specs

    @cached_property
    def untied(self) -> dict[str, str]:
        """Tied parameters that the adapters make different from what they were tied to."""
        return {
            alias: source
            for alias, source in self.architecture.tied.items()
            if any(not _same(changes.get(alias), changes.get(source)) for changes in self._changes)
        }

    @cached_property
    def num_changed(self) -> int:
        """Tensors of the merged model that differ from the base's."""
        return sum(1 for name in self.specs if any(self._piece(name).parameter in changes for changes in self._changes))

    def tensor(self, name: str) -> Tensor:
        """A tensor of the merged model: computed in float32 and rounded once.

        Raises:
            ModelError: it is not finite.
        """
        piece = self._piece(name)
        source = self._disk_name(self.untied[name]) if name in self.untied else name
        weight = self.base.read(source)
        own = [changes.get(piece.parameter, []) for changes in self._changes]
        dtype = self.specs[name].dtype
        if not any(own):
            return weight.to(dtype)
        if self.combine is None:
            return apply_all(weight, own[0], piece).to(dtype)
        by_adapter = zip(own, self.weights, strict=True)
        changed = [(apply_all(weight, changes, piece), share) for changes, share in by_adapter if changes]
        before = _grown(weight.to(torch.float32, copy=True), changed[0][0])
        updates = [new.sub_(before) for new, _ in changed]
        if not _holds_experts(own):
            # A convolution's kernel is one long row of inputs.
            updates = [update.flatten(1) if update.ndim > 2 else update for update in updates]
        combined = self.combine(name, updates, [share for _, share in changed])
        return before.add_(combined.view(before.shape)).to(dtype)

    @cached_property
    def _changes(self) -> list[Changes]:
        shapes = self._parameter_shapes
        found = [changes_of(adapter, self.architecture, shapes) for adapter in self.adapters]
        for adapter, changes in zip(self.adapters, found, strict=True):
            self._require_on_disk(adapter, changes)
        return found

    @cached_property
    def _parameter_shapes(self) -> Mapping[str, tuple[int, ...]]:
        if self.architecture.shapes:
            return self.architecture.shapes
        return {self._piece(name).parameter: spec.shape for name, spec in self.base.specs.items()}

    def _require_on_disk(self, adapter: Adapter, changes: Changes) -> None:
        on_disk = {self._piece(name).parameter for name in self.base.specs} | set(self.architecture.tied)
        for parameter in changes:
            if parameter in self.architecture.unread:
                raise ModelError(
                    f"the adapter in {adapter.folder} changes {parameter}, which lies in its base's files in a form "
                    f"that ftk does not fold into: {self.architecture.unread[parameter]}"
                )
            if parameter not in on_disk:
                raise ModelError(
                    f"the adapter in {adapter.folder} changes {parameter}, which its base does not have. {ANOTHER_BASE}"
                )

    def _piece(self, name: str) -> Piece:
        return self.architecture.pieces.get(name, Piece(name))

    def _disk_name(self, parameter: str) -> str:
        pieces = self.architecture.pieces
        return next(name for name in self.base.specs if pieces.get(name, Piece(name)).parameter == parameter)

    def _new_shape(self, name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        piece = self._piece(name)
        for adapter, changes in zip(self.adapters, self._changes, strict=True):
            for change in changes.get(piece.parameter, ()):
                if isinstance(change, ReplaceRows) and piece.is_whole:
                    shape = (max(shape[0], change.num_rows), *shape[1:])
                if not isinstance(change, Replace) or tuple(change.values.shape) == shape:
                    continue
                if change.values.shape[1:] != shape[1:] or not piece.is_whole:
                    raise ModelError(
                        f"the adapter in {adapter.folder} brings {piece.parameter} of shape "
                        f"{tuple(change.values.shape)}, and its base's is {shape}. {ANOTHER_BASE}"
                    )
                shape = tuple(change.values.shape)
        return shape


def _holds_experts(changes: Sequence[Sequence[object]]) -> bool:
    return any(isinstance(change, LowRank) and change.num_experts for some in changes for change in some)


def _grown(weight: Tensor, like: Tensor) -> Tensor:
    """The weight with zeros for rows that only the adapter has."""
    if weight.shape == like.shape:
        return weight
    grown = torch.zeros_like(like)
    grown[: len(weight)] = weight[: len(like)]
    return grown


def _same(one: Sequence[object] | None, other: Sequence[object] | None) -> bool:
    """Whether two parameters that start equal stay equal."""
    if not one and not other:
        return True
    if not one or not other or len(one) != len(other):
        return False
    return all(_same_change(a, b) for a, b in zip(one, other, strict=True))


def _same_change(one: object, other: object) -> bool:
    if one is other:
        return True
    if isinstance(one, Replace) and isinstance(other, Replace):
        return torch.equal(one.values, other.values)
    if not isinstance(one, LowRank) or not isinstance(other, LowRank):
        return False
    if one.scaling != other.scaling or one.magnitude_O is not None or other.magnitude_O is not None:
        return False
    # A head's update is stored the other way round than its embedding's.
    a, b = (other.b_OR.T, other.a_RI.T) if one.transposed != other.transposed else (other.a_RI, other.b_OR)
    return torch.equal(one.a_RI, a) and torch.equal(one.b_OR, b)
