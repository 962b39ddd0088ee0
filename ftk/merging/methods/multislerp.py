"""`multislerp`: the weighted mean of directions, at the weighted mean of lengths. Shapes: M models."""

import math
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Generator, Tensor

from ftk.core.config import Section
from ftk.merging.method import (
    WEIGHT,
    MergeError,
    NeedsBase,
    NumModels,
    Parameter,
    Parameters,
    Settings,
    check_weights,
    values,
)
from ftk.merging.sphere import inner_products, model_vectors
from ftk.merging.weighted_sum import weighted_sum


def multislerp(
    tensors_M: Sequence[Tensor],
    base: Tensor | None = None,
    *,
    weights_M: Sequence[float],
    normalize_weights: bool = True,
    epsilon: float = 1e-8,
) -> Tensor:
    """The direction of the weighted sum of unit vectors, at the weighted sum of lengths; one tensor is itself.

    The method is told as a walk: to the tangent space at that direction, a weighted mean there, and back to the sphere.
    But the weighted mean in the tangent space is zero, as the parts of the unit vectors across their own weighted sum
    cancel; so the walk ends where it began, and is left out.

    Args:
        base: if given, the differences to it are merged and added to it.
        epsilon: added to lengths before they divide; a sum of unit vectors shorter than this has no direction.

    Raises:
        MergeError: the weights sum to zero, or more than two directions cancel.

    Source: Goddard 2025, https://goddard.blog/posts/multislerp-wow-what-a-cool-idea
    """
    if len(tensors_M) == 1:
        return tensors_M[0]
    if normalize_weights:
        check_weights(weights_M)
        weights_M = [weight / sum(weights_M) for weight in weights_M]
    products_MM = inner_products(model_vectors(tensors_M, base), tensors_M[0].numel())
    lengths_M = products_MM.diagonal().sqrt()
    weights = torch.tensor(weights_M, dtype=torch.float64)
    on_units = weights / (lengths_M + epsilon)
    length = math.sqrt(max(0.0, float(on_units @ products_MM @ on_units)))
    if length >= epsilon:
        factors_M = (on_units * (float(weights @ lengths_M) / length)).tolist()
    elif len(tensors_M) == 2 or float(lengths_M.max()) <= epsilon:
        # Two opposite directions, as in mergekit, or none that has a length: the mean on the line.
        factors_M = list(weights_M)
    else:
        raise MergeError("the weighted directions of the models cancel, so that they have no mean. Change a weight")
    if base is None:
        return weighted_sum(tensors_M, factors_M)
    return weighted_sum([*tensors_M, base], [*factors_M, 1 - sum(factors_M)])


class Multislerp(Section):
    """The mean direction of any number of models at their mean length; of their changes, where a base is named."""

    name: Literal["multislerp"] = "multislerp"
    """`multislerp`: a mean on the sphere in one step."""
    normalize_weights: bool = True
    """Whether weights are divided by their sum."""
    eps: Annotated[float, Field(gt=0)] = 1e-8
    """Added to lengths before they divide; directions whose sum is shorter than this cancel."""

    per_model: ClassVar[tuple[Parameter, ...]] = (WEIGHT,)
    needs_base: ClassVar[NeedsBase] = "optional"
    num_models: ClassVar[NumModels] = (1, None)

    def check(self, *, parameters: Parameters, settings: Settings, has_base: bool) -> None:
        """See `Method.check`."""
        if settings["normalize_weights"]:
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
        return multislerp(
            tensors,
            base,
            weights_M=values(parameters, "weight"),
            normalize_weights=bool(settings["normalize_weights"]),
            epsilon=float(settings["eps"]),
        )
