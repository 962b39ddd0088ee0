"""`model_stock`: as far from the base as the models agree. Shapes: M models, R rows."""

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Generator, Tensor

from ftk.core.config import Section
from ftk.merging.chunks import last_length
from ftk.merging.method import NeedsBase, NumModels, Parameter, Parameters, Settings, required
from ftk.merging.sphere import inner_products, inner_products_by_row, model_vectors
from ftk.merging.weighted_sum import weighted_sum, weighted_sum_by_row

_SHORT = 1e-6
"""The product of two lengths is at least this where it divides, as in mergekit: changes below it hardly count."""
_SINGULAR = 1e-6
"""A denominator nearer to zero than this leaves the base as it is."""


def model_stock(tensors_M: Sequence[Tensor], base: Tensor, *, by_row: bool = False) -> Tensor:
    """Between the base and the mean of the models, nearer to the mean the smaller the angles between their changes.

    Args:
        by_row: each row (along the last dimension) has its own angles; else the whole tensor has.

    Source: Jang et al. 2024 (arXiv:2403.19522), equation 5, the cosine averaged over all pairs of models.
    """
    vectors = model_vectors(tensors_M, base)
    if by_row:
        num_columns = last_length(base)
        products = inner_products_by_row(vectors, base.numel() // max(1, num_columns), num_columns, dim=1)
    else:
        products = inner_products(vectors, base.numel())
    t = mean_share(products)
    count = len(tensors_M)
    if by_row:
        return weighted_sum_by_row([*tensors_M, base], torch.stack([*[t / count] * count, 1 - t]))
    return weighted_sum([*tensors_M, base], [*[float(t) / count] * count, 1 - float(t)])


def mean_share(products: Tensor) -> Tensor:
    """The share of the models' mean, the base having the rest, from inner products [M, M, ...] of the changes."""
    count = len(products)
    lengths = [products[index, index].sqrt() for index in range(count)]
    cosines = [
        (products[i, j] / (lengths[i] * lengths[j]).clamp_min(_SHORT)).clamp(-1, 1)
        for i in range(count)
        for j in range(i + 1, count)
    ]
    cosine = torch.stack(cosines).mean(0)
    denominator = 1 + (count - 1) * cosine
    is_singular = denominator.abs() < _SINGULAR
    return torch.where(is_singular, 0, count * cosine / torch.where(is_singular, 1, denominator))


class ModelStock(Section):
    """A mean pulled back towards the base, by how much the models' changes disagree; it has nothing to choose."""

    name: Literal["model_stock"] = "model_stock"
    """`model_stock`: the mean and the base, weighed by the angles between changes."""
    filter_wise: bool = False
    """Whether each row of a matrix has its own angles."""

    per_model: ClassVar[tuple[Parameter, ...]] = ()
    needs_base: ClassVar[NeedsBase] = "required"
    num_models: ClassVar[NumModels] = (2, None)

    def check(self, *, parameters: Parameters, settings: Settings, has_base: bool) -> None:
        """See `Method.check`: there are no numbers."""

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
        return model_stock(tensors, required(base), by_row=bool(settings["filter_wise"]))
