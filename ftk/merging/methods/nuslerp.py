"""`nuslerp`: the arc between two models by their weights, row by row if wanted, from a base if there is one.

Shapes: R rows, N columns.
"""

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Generator, Tensor

from ftk.core.config import Section
from ftk.merging.chunks import last_length
from ftk.merging.method import WEIGHT, NeedsBase, NumModels, Parameter, Parameters, Settings, check_weights, values
from ftk.merging.sphere import inner_products, inner_products_by_row, model_vectors, slerp_weights
from ftk.merging.weighted_sum import weighted_sum, weighted_sum_by_row

_SHORT = 1e-7
"""Vectors shorter than this are taken to have this length."""
_COLLINEAR = 1e-16
"""A squared sine up to this is taken for a line."""


def nuslerp(
    first: Tensor, second: Tensor, base: Tensor | None = None, *, t: float, along: Literal["all", "rows", "columns"]
) -> Tensor:
    """The tensor at the fraction `t` of the arc from `first` to `second`.

    Args:
        base: if given, the arc lies between the differences to it, and is added to it.
        along: what is one vector: the whole tensor, each row (its last dimension), or each column (its first).

    Source: Shoemake 1985 (doi:10.1145/325334.325242), section 3.3.
    """
    tensors = [first, second] if base is None else [first, second, base]
    vectors = model_vectors([first, second], base)
    if along == "all":
        weights = _weights(inner_products(vectors, first.numel()), t)
        numbers = [float(weight) for weight in weights]
        return weighted_sum(tensors, numbers if base is None else [*numbers, 1 - sum(numbers)])
    num_columns = last_length(first) if along == "rows" else first.numel() // max(1, len(first) if first.ndim else 1)
    num_rows = first.numel() // max(1, num_columns)
    products = inner_products_by_row(vectors, num_rows, num_columns, dim=1 if along == "rows" else 0)
    shares = list(_weights(products, t))
    if base is not None:
        shares.append(1 - shares[0] - shares[1])
    return weighted_sum_by_row(tensors, torch.stack(shares))


def _weights(products: Tensor, t: float) -> tuple[Tensor, Tensor]:
    """Of both vectors, from their inner products [2, 2, ...]."""
    lengths = products[0, 0].sqrt().clamp_min(_SHORT) * products[1, 1].sqrt().clamp_min(_SHORT)
    cosine = (products[0, 1] / lengths).clamp(-1, 1)
    return slerp_weights(cosine, t, linear=1 - cosine.square() <= _COLLINEAR)


class Nuslerp(Section):
    """Along the arc between two models, or between their changes of a base, by weights that need not sum to 1."""

    name: Literal["nuslerp"] = "nuslerp"
    """`nuslerp`: spherical interpolation by weights."""
    nuslerp_flatten: bool = True
    """Whether a tensor is one vector; else each of its rows is."""
    nuslerp_row_wise: bool = False
    """Without `nuslerp_flatten`: the vectors are the columns (along the first dimension) instead of the rows.

    The name is mergekit's, whose files mean this by it."""

    per_model: ClassVar[tuple[Parameter, ...]] = (WEIGHT,)
    needs_base: ClassVar[NeedsBase] = "optional"
    num_models: ClassVar[NumModels] = (2, 2)

    def check(self, *, parameters: Parameters, settings: Settings, has_base: bool) -> None:
        """See `Method.check`."""
        check_weights(values(parameters, "weight"))

    def merge(
        self,
        tensors: Sequence[Tensor],
        *,
        base: Tensor | None,
        parameters: Parameters,
        settings: Settings,
        generator: Generator,
    ) -> Tensor:
        """See `Method.merge`."""
        first, second = values(parameters, "weight")
        check_weights([first, second])
        along: Literal["all", "rows", "columns"] = "columns" if settings["nuslerp_row_wise"] else "rows"
        if settings["nuslerp_flatten"]:
            along = "all"
        return nuslerp(tensors[0], tensors[1], base, t=second / (first + second), along=along)
