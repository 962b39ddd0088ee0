"""A step of training on paper: tensors that are only sizes, and the order in which autograd makes and drops them.

What a transformer keeps is decided by which tensor each operation saves, and its peak by what else is alive then. Both
follow from the modelling code: `layers.py` writes it again with these sizes in place of numbers, and Python's own
reference counts free a tensor where torch would free it.

Source: the saved tensors of each operation as `derivatives.yaml` of torch 2.13 lists them; the engine's order (latest
operation first, gradients added where two meet) as in `torch/csrc/autograd/engine.cpp` and `input_buffer.cpp`.
"""

import heapq
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from ftk.memory.ledger import Ledger, Storage


class Parameter:
    """A weight, and its gradient once there is one."""

    __slots__ = ("grad", "kind", "numel", "trained", "width")

    def __init__(self, numel: int, width: int, *, trained: bool, kind: str = "gradients") -> None:
        self.numel, self.width, self.trained, self.kind = numel, width, trained, kind
        self.grad: Storage | None = None


class Tensor:
    """A tensor of `numel` numbers of `width` bytes."""

    __slots__ = ("node", "numel", "parameter", "storage", "width")

    def __init__(
        self,
        storage: Storage | None,
        numel: int,
        width: int,
        node: "Node | None" = None,
        parameter: Parameter | None = None,
    ) -> None:
        self.storage, self.numel, self.width, self.node, self.parameter = storage, numel, width, node, parameter

    @property
    def needs_grad(self) -> bool:
        """Whether a gradient reaches it."""
        return self.node is not None or (self.parameter is not None and self.parameter.trained)

    @property
    def num_bytes(self) -> int:
        return self.numel * self.width


Backward = Callable[[Storage], Sequence[Storage | None]]
"""From the gradient of the output to those of the inputs."""


class Node:
    """One operation of the graph."""

    __slots__ = ("backward", "frame", "inputs", "number", "pinned", "saved", "slot")

    def __init__(self, number: int, inputs: list["Node | Parameter | None"], backward: Backward) -> None:
        self.number, self.inputs, self.backward = number, inputs, backward
        self.saved: list[Storage | None] | None = None
        self.pinned: list[Storage | None] | None = None
        self.frame: Frame | None = None
        self.slot = 0

    def __lt__(self, other: "Node") -> bool:
        return self.number > other.number


class _Stop(Exception):
    """Everything that was dropped is there again."""


class Frame:
    """A checkpointed part of the graph: its nodes keep nothing until the part is run again.

    Source: `torch/utils/checkpoint.py`, `_CheckpointFrame`, the kind that is not reentrant, with early stop.
    """

    def __init__(self, function: Callable[[Tensor], Tensor], x: Tensor) -> None:
        self.function = function
        self.x = Tensor(x.storage, x.numel, x.width, x.node)
        self.num_slots = 0
        self.kept: list[list[Storage | None] | None] | None = None


class Tape:
    """Runs operations on sizes, forward and backward."""

    def __init__(
        self, ledger: Ledger, *, compute_width: int, gradient_share: float = 1.0, keeps_casts: bool = True
    ) -> None:
        """Of each gradient, `gradient_share` is kept once it is complete: 1 unless devices divide them."""
        self.ledger = ledger
        self.keeps_casts = keeps_casts
        self.gradient_share = gradient_share
        self.compute_width = compute_width
        self.kind = "activations"
        self._number = 0
        self._frame: Frame | None = None
        self._again: Frame | None = None
        self.casts: dict[int, Tensor] | None = None
        """Casts of trained weights within the present region of autocast."""
        self._kept: list[Storage | None] | None = None

    def new(self, num_bytes: int) -> Storage:
        """Bytes of the present kind."""
        return Storage(self.ledger, self.kind, num_bytes)

    @contextmanager
    def counted_as(self, kind: str) -> Iterator[None]:
        """What is allocated within counts as this kind."""
        before, self.kind = self.kind, kind
        try:
            yield
        finally:
            self.kind = before

    @contextmanager
    def autocast(self, *, keeps: bool | None = None) -> Iterator[None]:
        """Within, casts of trained weights are made once; they stay until the end (`autocast_mode.cpp`), if kept."""
        before, self.casts = self.casts, {} if (self.keeps_casts if keeps is None else keeps) else None
        try:
            yield
        finally:
            self.casts = before

    def apply(
        self,
        inputs: Sequence[Tensor],
        *,
        out: tuple[int, int] | None,
        backward: Backward,
        saved: Sequence[Tensor] = (),
        saves_out: bool = False,
        extra: int = 0,
        pinned: Sequence[Tensor] = (),
        like: Tensor | None = None,
    ) -> Tensor:
        """One operation.

        Args:
            inputs: what gradients go to.
            out: numbers of the output and their width; None where it is the first input's own storage.
            backward: gradients of the inputs from that of the output. It may hold sizes, never tensors.
            saved: what is kept for the backward pass.
            saves_out: whether the output is kept too.
            extra: bytes that are kept besides, such as statistics.
            pinned: what is kept in a way that activation checkpointing does not see, and therefore keeps.
            like: whose storage the output shares, where `out` is None.
        """
        node = None
        keeps = bool(saved) or saves_out or extra > 0
        if any(one.needs_grad for one in inputs):
            self._number += 1
            edges = [one.node if one.node is not None else one.parameter if one.needs_grad else None for one in inputs]
            node = Node(self._number, edges, backward)
            node.pinned = [one.storage for one in pinned]
            if keeps and not saves_out and not extra and self._is_last():
                self._keep(node, [one.storage for one in saved])
        if out is None:
            source = like if like is not None else inputs[0]
            result = Tensor(source.storage, source.numel, source.width, node)
        else:
            result = Tensor(self.new(out[0] * out[1]), out[0], out[1], node)
        if node is not None and keeps:
            kept = [one.storage for one in saved]
            kept += [result.storage] if saves_out else []
            kept += [self.new(extra)] if extra else []
            self._keep(node, kept)
        return result

    def _is_last(self) -> bool:
        """Whether nothing more is missing of a part that is run again once this operation has kept its inputs."""
        again = self._again
        return again is not None and again.kept is not None and len(again.kept) + 1 == again.num_slots

    def _keep(self, node: Node, kept: list[Storage | None]) -> None:
        if self._again is not None:
            assert self._again.kept is not None
            self._again.kept.append(kept)
            if len(self._again.kept) == self._again.num_slots:
                raise _Stop
        elif self._frame is not None:
            node.frame, node.slot = self._frame, self._frame.num_slots
            self._frame.num_slots += 1
        else:
            node.saved = kept

    def checkpoint(self, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """Run a part that keeps its input alone, and is run again in the backward pass."""
        self._frame = Frame(function, x)
        try:
            return function(x)
        finally:
            self._frame = None

    def kept_of(self, number: int) -> Storage | None:
        """What the operation kept whose gradients are computed now, for one that overwrites it."""
        return None if self._kept is None else self._kept[number]

    def _run_again(self, frame: Frame) -> None:
        frame.kept = []
        self._again = frame
        x = frame.x
        leaf = Tensor(x.storage, x.numel, x.width, Node(0, [], lambda g: ()) if x.node is not None else None)
        before, self.ledger.moment = self.ledger.moment, f"{self.ledger.moment}, computed again"
        try:
            with self.autocast():
                frame.function(leaf)
        except _Stop:
            pass
        finally:
            self._again = None
            self.ledger.moment = before

    def backward(self, root: Tensor) -> None:
        """Gradients of everything that `root` came from, latest operation first."""
        assert root.node is not None
        waiting, sums = _dependencies(root.node), set[int]()
        buffers: dict[int, Storage] = {id(root.node): self.new(root.num_bytes)}
        ready = [root.node]
        root.node = None
        while ready:
            node = heapq.heappop(ready)
            given = self._gradients(node, buffers)
            for edge in node.inputs:
                # Not by zip, which holds what it gave last: a gradient that is held cannot become a weight's own.
                one = given.pop(0)
                if edge is None:
                    continue
                if one is not None:
                    _add(self, buffers, sums, edge, one)
                del one
                waiting[id(edge)] -= 1
                if waiting[id(edge)]:
                    continue
                if isinstance(edge, Parameter):
                    _accumulate(self, edge, buffers)
                else:
                    heapq.heappush(ready, edge)
            del node, edge

    def _gradients(self, node: Node, buffers: dict[int, Storage]) -> list[Storage | None]:
        """Gradients of a node's inputs; that of its output is freed, and what it kept."""
        gradient = buffers.pop(id(node), None)
        if gradient is None:
            return [None] * len(node.inputs)
        if (frame := node.frame) is not None:
            if frame.kept is None:
                self._run_again(frame)
            assert frame.kept is not None
            node.saved, frame.kept[node.slot] = frame.kept[node.slot], None
        self._kept = node.saved
        found = list(node.backward(gradient))
        self._kept = None
        node.saved, node.frame, node.pinned = None, None, None
        return found


def _dependencies(root: Node) -> dict[int, int]:
    """How many gradients each node waits for."""
    counts: dict[int, int] = {}
    stack = [root]
    while stack:
        for edge in stack.pop().inputs:
            if edge is None:
                continue
            counts[id(edge)] = counts.get(id(edge), 0) + 1
            if counts[id(edge)] == 1 and isinstance(edge, Node):
                stack.append(edge)
    return counts


def _add(tape: Tape, buffers: dict[int, Storage], sums: set[int], edge: Node | Parameter, gradient: Storage) -> None:
    """Gradients of two users are added beside both; one more is added into that sum, which nobody else holds.

    Source: `can_accumulate_inplace` in `input_buffer.cpp`; of the first of two, the profiler shows that it is held.
    """
    old = buffers.pop(id(edge), None)
    if old is not None and id(edge) not in sums:
        old = tape.new(old.num_bytes)
        sums.add(id(edge))
    buffers[id(edge)] = gradient if old is None else old


def _accumulate(tape: Tape, parameter: Parameter, buffers: dict[int, Storage]) -> None:
    gradient = buffers.pop(id(parameter), None)
    if gradient is None or parameter.grad is not None:
        return
    share = tape.gradient_share if parameter.kind == "gradients" else 1.0
    if share < 1 or sys.getrefcount(gradient) > 2:
        gradient = tape.new(round(gradient.num_bytes * share))
    gradient.become(parameter.kind)
    parameter.grad = gradient
