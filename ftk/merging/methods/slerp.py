"""`slerp`: along the arc between the directions of two models; more than two one after the other. Shapes: M models."""

from collections.abc import Sequence
from itertools import accumulate
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Generator, Tensor

from ftk.core.config import Section
from ftk.merging.method import MergeError, NeedsBase, NumModels, Parameter, Parameters, Settings, values
from ftk.merging.sphere import inner_products, model_vectors, slerp_weights
from ftk.merging.weighted_sum import weighted_sum

NEARLY_COLLINEAR = 0.9995
"""A cosine beyond this, of either sign, is taken for a line. The same bound as mergekit's."""
_SHORT = 1e-8
"""Vectors up to this length count as having length 1, so that no division is by zero."""


def slerp(tensors_M: Sequence[Tensor], *, fractions: Sequence[float]) -> Tensor:
    """From the first tensor along the arc towards the second, from there towards the third, and so on.

    Each tensor is taken as one vector. The weights of an arc are put on the tensors as they are, not on unit vectors,
    so that lengths are mixed too. Nearly collinear tensors are interpolated on the line between them.

    The angle is found in float64. In float32, as in mergekit, that of kin (at a cosine of 0.99) is 1e-5 off, which
    moves 0.4% of bfloat16 values by one last place.

    Args:
        fractions: how far to go towards each tensor but the first; 0 stays, 1 arrives.

    Source: Shoemake 1985 (doi:10.1145/325334.325242), section 3.3.
    """
    products_MM = inner_products(model_vectors(tensors_M, None), tensors_M[0].numel())
    # Where the walk stands is a sum of the tensors at every step: only its weights are kept.
    weights_M = torch.zeros(len(tensors_M), dtype=torch.float64)
    weights_M[0] = 1
    for number, t in enumerate(fractions, start=1):
        here = (weights_M @ products_MM @ weights_M).clamp_min(0).sqrt()
        there = products_MM[number, number].sqrt()
        lengths = torch.where(here > _SHORT, here, 1) * torch.where(there > _SHORT, there, 1)
        cosine = ((products_MM @ weights_M)[number] / lengths).clamp(-1, 1)
        stay, go = slerp_weights(cosine, t, linear=cosine.abs() > NEARLY_COLLINEAR)
        weights_M *= stay
        weights_M[number] += go
    return weighted_sum(tensors_M, weights_M.tolist())


def fractions_of(weights_M: Sequence[float]) -> list[float]:
    """For each tensor but the first its weight over the sum of all weights so far, itself included.

    On a line the walk would end at the weighted mean; on the sphere the order of three or more matters a little.

    Raises:
        MergeError: a sum is zero.
    """
    sums = list(accumulate(weights_M))
    if any(abs(total) < 1e-8 for total in sums[1:]):
        raise MergeError(f"the weights sum to zero on the way: {', '.join(f'{total:g}' for total in sums)}")
    return [weight / total for weight, total in zip(weights_M[1:], sums[1:], strict=True)]


class Slerp(Section):
    """Along the arc between two models, which keeps the length of their weights where a mean would shorten it.

    More than two models are merged one after the other in the order of the list, the base first, each by its `weight`.
    """

    name: Literal["slerp"] = "slerp"
    """`slerp`: spherical interpolation."""
    t: Annotated[float, Field(ge=0, le=1)] | None = None
    """Where between two models: 0 is the base (the first model, where none is named), 1 the other.

    Not for more than two models. By default it follows from their weights."""
    base_weight: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the base beside those of the models, where `t` is not given."""

    per_model: ClassVar[tuple[Parameter, ...]] = (
        Parameter("weight", "Share of the model, where `t` is not given.", default=1.0, lowest=0.0),
    )
    needs_base: ClassVar[NeedsBase] = "optional"
    num_models: ClassVar[NumModels] = (1, None)

    def check(self, *, parameters: Parameters, settings: Settings, has_base: bool) -> None:
        """See `Method.check`."""
        self._fractions(parameters, settings, has_base=has_base)

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
        fractions = self._fractions(parameters, settings, has_base=base is not None)
        return slerp(tensors if base is None else [base, *tensors], fractions=fractions)

    def _fractions(self, parameters: Parameters, settings: Settings, *, has_base: bool) -> list[float]:
        weights = values(parameters, "weight")
        if has_base:
            weights = [float(settings["base_weight"]), *weights]
        t = settings.get("t")
        if t is None or len(weights) == 1:
            return fractions_of(weights)
        if len(weights) > 2:
            raise MergeError(
                f"t says where between two models, and there are {len(weights)}. Give each a weight instead"
            )
        return [float(t)]
