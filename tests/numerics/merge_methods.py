"""A merge method called by name, and small tensors to merge."""

from typing import Any

import torch
from torch import Tensor

from ftk.merging.methods import method_named


def merged(
    name: str, tensors: list[Tensor], base: Tensor | None = None, *, seed: int = 0, model: Any = None, **settings: Any
) -> Tensor:
    """By the method of this name; `model` has a list of values a parameter, or one value for all models."""
    method: Any = method_named(name)(**settings)
    given = {
        key: value for key, value in method.model_dump(by_alias=True).items() if key != "name" and value is not None
    }
    parameters = []
    for index in range(len(tensors)):
        chosen = {one.name: (model or {}).get(one.name, one.default) for one in method.per_model}
        parameters.append({key: value[index] if isinstance(value, list) else value for key, value in chosen.items()})
    method.check(parameters=parameters, settings=given, has_base=base is not None)
    before = [tensor.clone() for tensor in (*tensors, *([] if base is None else [base]))]
    result: Tensor = method.merge(
        tensors, base=base, parameters=parameters, settings=given, generator=torch.Generator().manual_seed(seed)
    )
    after = [*tensors, *([] if base is None else [base])]
    assert all(torch.equal(old, new) for old, new in zip(before, after, strict=True)), "an input was written to"
    return result


def numbers(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def models(count: int = 3, shape: tuple[int, ...] = (23, 31), dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """A base, and `count` models near it."""
    generator = torch.Generator().manual_seed(7)
    base = torch.randn(shape, generator=generator, dtype=torch.float64)
    others = [base + 0.3 * torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(count)]
    return [tensor.to(dtype) for tensor in (base, *others)]


def close(result: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(result, expected, rtol=1e-12, atol=1e-12)


WEIGHTS = [0.5, 0.3, 0.4]
DENSITIES = [0.5, 0.2, 0.9]
