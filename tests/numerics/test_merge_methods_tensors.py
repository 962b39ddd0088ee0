"""What all merge methods have in common: chunks, threads, dtypes, shapes, and numbers without a result."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from merge_methods import DENSITIES, WEIGHTS, merged, models, numbers
from torch import Tensor

from ftk.merging.method import MergeError

ON_THREE: dict[str, dict[str, Any]] = {
    "linear": {"model": {"weight": WEIGHTS}},
    "slerp": {"model": {"weight": WEIGHTS}},
    "multislerp": {"model": {"weight": WEIGHTS}},
    "karcher": {},
    "task_arithmetic": {"model": {"weight": WEIGHTS}},
    "ties": {"model": {"weight": WEIGHTS, "density": DENSITIES}},
    "breadcrumbs_ties": {"model": {"weight": WEIGHTS, "density": DENSITIES}},
    "dare_ties": {"model": {"weight": WEIGHTS, "density": DENSITIES}},
    "della": {"model": {"weight": WEIGHTS, "density": 0.5}},
    "model_stock": {},
    "sce": {"select_topk": 0.5},
}


@pytest.mark.parametrize("name", ON_THREE)
def test_chunks_and_threads_do_not_change_the_result(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large tensors go in pieces, several at a time; only draws and the order of sums depend on where pieces begin."""
    base, *others = models(shape=(64, 96))
    given = None if name in ("linear", "slerp", "karcher") else base
    whole = merged(name, others, given, **ON_THREE[name])
    monkeypatch.setattr("ftk.merging.chunks.chunks.__kwdefaults__", {"row_length": 1, "size": 700})
    monkeypatch.setattr("ftk.merging.chunks.each_chunk.__kwdefaults__", {"row_length": 1, "size": 700})
    monkeypatch.setattr("ftk.merging.order_statistics.COUNTED_CHUNK", 1100)
    results = []
    for num_threads in (1, 3):
        monkeypatch.setattr("torch.get_num_threads", lambda found=num_threads: found)
        results.append(merged(name, others, given, **ON_THREE[name]))
    assert torch.equal(results[0], results[1])
    if name not in ("dare_ties", "della"):
        torch.testing.assert_close(results[0], whole, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", ON_THREE)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_half_precision_is_computed_in_float32(name: str, dtype: torch.dtype) -> None:
    """The result is the one in float64, rounded once; elements beside a threshold of half precision apart."""
    base, *others = models(dtype=dtype)
    given = None if name in ("linear", "slerp", "karcher") else base
    result = merged(name, others, given, **ON_THREE[name])
    assert result.dtype == dtype
    wide = [tensor.double() for tensor in others]
    expected = merged(name, wide, None if given is None else base.double(), **ON_THREE[name])
    allowed = torch.finfo(dtype).eps * expected.abs() + 2 * torch.finfo(dtype).eps
    off = ((result.double() - expected).abs() > allowed).double().mean()
    at_thresholds = name in ("ties", "breadcrumbs_ties", "dare_ties", "della", "sce")
    assert off <= (0.01 if at_thresholds else 0)


@pytest.mark.parametrize("name", ON_THREE)
@pytest.mark.parametrize("shape", [(), (1,), (5,), (0,), (2, 3, 4)])
def test_any_shape(name: str, shape: tuple[int, ...]) -> None:
    base, *others = models(shape=shape)
    given = None if name in ("linear", "slerp", "karcher") else base
    result = merged(name, others, given, **ON_THREE[name])
    assert result.shape == shape
    assert bool(result.isfinite().all())


def test_tensors_of_different_dtypes_give_the_widest() -> None:
    base, first, second = models(2)
    result = merged("task_arithmetic", [first.bfloat16(), second.float()], base.half(), model={"weight": 0.5})
    assert result.dtype == torch.float32


WRONG: dict[str, Callable[[], Tensor]] = {
    "sum to zero": lambda: merged("linear", models(2)[1:], model={"weight": [1.0, -1.0]}),
    "give probabilities from 0.8 to 1": lambda: merged(
        "della", models(1)[1:], models(1)[0], model={"weight": 1.0, "density": 0.9, "epsilon": 0.1}
    ),
    "between two models, and there are 4": lambda: merged("slerp", models()[1:], models()[0], t=0.5),
    "on the way": lambda: merged("slerp", models(2)[1:], model={"weight": 0.0}),
    "cancel, so that they have no mean": lambda: merged(
        "multislerp", [numbers(1, 0), numbers(-1, 0), numbers(0, 0)], model={"weight": [1.0, 1.0, 1.0]}
    ),
}


@pytest.mark.parametrize("message", WRONG)
def test_numbers_without_a_result_are_named(message: str) -> None:
    with pytest.raises(MergeError, match=message):
        WRONG[message]()
