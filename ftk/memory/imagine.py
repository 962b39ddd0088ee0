"""Running torch code on tensors without numbers: weights are imagined, while token ids and masks stay real.

Whatever decides which way the code takes (which tokens are scored, whether a row is packed) is computed truly, on
integers and booleans; numbers that no memory stands behind have shapes and types alone.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch._prims_common import is_non_overlapping_and_dense_or_false
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

Substitute = Callable[..., Any]
"""Called with an operation's arguments in its place; the operations that it calls are followed."""

_ATEN = torch.ops.aten
_INDEXED = frozenset({_ATEN.index.Tensor, _ATEN.index_put.default, _ATEN.index_put_.default})
MOST_REAL = 2**24
"""Numbers above which a tensor is imagined, whatever it holds: a mask of 4,096 places to both sides is as large."""
FACTORIES = frozenset({"aten::empty", "aten::zeros", "aten::ones", "aten::full", "aten::rand", "aten::randn"})
"""Operations that make numbers from a shape alone."""


class Imagine(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Within, new floating-point tensors are imagined, and questions about imagined numbers get an answer.

    A number that is asked for is one, a truth is true; two imagined tensors are equal where they are the same memory.
    Single numbers are real, and so are integers and truths up to `MOST_REAL` of them.
    """

    def __init__(self, fake: FakeTensorMode, substitutes: Mapping[Any, Substitute] | None = None) -> None:
        """`substitutes` are what stands for operations that hide what they allocate."""
        super().__init__()  # type: ignore[no-untyped-call]
        self._fake = fake
        _sole_holders()
        self._substitutes = dict(substitutes or {})

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        tensors = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
        if any(isinstance(tensor, FakeTensor) for tensor in tensors):
            if func is _ATEN._local_scalar_dense.default:
                return _one(args[0].dtype)
            if func is _ATEN.equal.default:
                return _is_same(*args)
            if func is _ATEN.add.Tensor and _is_added_in_place(args[0]):
                return args[0].add_(args[1])
            if func in _INDEXED:
                args = (args[0], _as_places(args[1]), *args[2:])
            substitute = self._substitutes.get(func)
            if substitute is not None:
                return substitute(*args, **kwargs)
        elif _is_large(tensors) if tensors else _makes_numbers(func, args, kwargs):
            with self._fake:
                return func(*args, **kwargs)
        return func(*args, **kwargs)


def imagining() -> FakeTensorMode:
    """The mode in which a model is built without memory; what it makes mixes with real tensors."""
    return FakeTensorMode(allow_non_fake_inputs=True)


def _is_added_in_place(tensor: Tensor) -> bool:
    """Whether autograd, which adds up gradients that meet, would reuse this one for the sum if no mode were watching.

    Source: `can_accumulate_inplace` in torch/csrc/autograd/input_buffer.cpp: nobody else holds it, and it is dense.
    """
    in_backward = torch._C._current_graph_task_id() != -1 and not torch.is_grad_enabled()
    if not in_backward or _num_holders(tensor) != _sole_holders():
        return False
    return bool(is_non_overlapping_and_dense_or_false(tensor))


def _num_holders(tensor: Tensor) -> tuple[int, int]:
    return tensor._use_count(), torch._C._storage_Use_Count(tensor.untyped_storage()._cdata)  # type: ignore[attr-defined]


@cache
def _sole_holders() -> tuple[int, int]:
    """How many a mode sees to hold a gradient that autograd alone holds: seen where a weight is used twice."""
    seen: list[tuple[int, int]] = []

    class Look(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func is _ATEN.add.Tensor:
                seen.append(_num_holders(args[0]))
            return func(*args, **(kwargs or {}))

    weight = torch.ones(2, 2, requires_grad=True)
    product = torch.ones(2, 2) @ weight @ weight
    with Look():  # type: ignore[no-untyped-call]
        torch.autograd.backward(product, torch.ones(2, 2))
    return seen[0]


@contextmanager
def movable() -> Iterator[None]:
    """Within, modules with imagined weights can be cast and moved.

    torch does so by swapping such tensors, and refuses where weak references look at them, as a fake mode's do.
    """
    swap = torch.utils.swap_tensors

    def take(tensor: Tensor, other: Tensor) -> None:
        tensor.data = other.data

    torch.utils.swap_tensors = take
    try:
        yield
    finally:
        torch.utils.swap_tensors = swap


def _makes_numbers(func: Any, args: Any, kwargs: Mapping[str, Any]) -> bool:
    if func._schema.name not in FACTORIES or not args[0]:
        return False
    if prod(args[0]) > MOST_REAL:
        return True
    dtype = kwargs.get("dtype")
    if dtype is None:
        is_filled = func._schema.name == "aten::full"
        return not is_filled or isinstance(args[1], float)
    return bool(dtype.is_floating_point)


def _is_large(tensors: Sequence[Tensor]) -> bool:
    """Whether an operation on real tensors, such as the comparison of every place with every other, makes too many."""
    most = max(tensor.ndim for tensor in tensors)
    padded = [(1,) * (most - tensor.ndim) + tuple(tensor.shape) for tensor in tensors]
    widest: list[int] = [max(sizes) for sizes in zip(*padded, strict=True)]
    return bool(prod(widest) > MOST_REAL)


def _as_places(indices: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Indices with the places at which real truths hold in place of these, as imagined ones hold nowhere."""
    found: list[Tensor | None] = []
    for index in indices:
        is_truth = index is not None and index.dtype == torch.bool and not isinstance(index, FakeTensor)
        found += index.nonzero().unbind(1) if index is not None and is_truth else [index]
    return found


def _one(dtype: torch.dtype) -> bool | int | float:
    if dtype == torch.bool:
        return True
    return 1.0 if dtype.is_floating_point else 1


def _is_same(first: Tensor, second: Tensor) -> bool:
    return (
        first.shape == second.shape
        and first.untyped_storage()._cdata == second.untyped_storage()._cdata
        and first.storage_offset() == second.storage_offset()
        and first.stride() == second.stride()
    )
