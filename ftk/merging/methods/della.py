"""`della`: random changes, large ones more often, summed where signs agree. Shapes: M models."""

from collections.abc import Sequence
from typing import ClassVar, Literal

from torch import Generator, Tensor

from ftk.core.config import Section
from ftk.merging.method import (
    DENSITY,
    WEIGHT,
    NeedsBase,
    NumModels,
    Parameter,
    Parameters,
    Settings,
    check_weights,
    required,
    values,
)
from ftk.merging.sparsify import by_magnitude_at_random, check_epsilons
from ftk.merging.task_settings import Lambda, Normalize
from ftk.merging.task_vectors import TaskVectors


def della(
    tensors_M: Sequence[Tensor],
    base: Tensor,
    *,
    weights_M: Sequence[float],
    densities_M: Sequence[float],
    epsilons_M: Sequence[float],
    normalize: bool = True,
    rescale: bool = True,
    scale: float = 1.0,
    generator: Generator,
) -> Tensor:
    """The base plus the weighted sum of changes kept at random by rank, of those with the elected sign.

    In each row the smallest change is kept with probability density - epsilon, the largest with density + epsilon,
    those between in even steps. Kept changes are divided by their probability if `rescale`; mergekit instead enlarges
    them all by the ratio of the sums of magnitudes before and after.

    Raises:
        MergeError: the weights sum to zero and are to be divided by,
            or a probability would leave (0, 1).

    Source: Deep et al. 2024 (arXiv:2406.11617), section 3.
    """
    vectors = TaskVectors(tensors_M, base)
    kept_M = by_magnitude_at_random(
        densities_M, epsilons_M, row_length=vectors.row_length, rescale=rescale, generator=generator
    )
    return vectors.merge(
        kept_M, weights_M=weights_M, elect_signs=True, normalize=normalize, scale=scale, row_length=vectors.row_length
    )


class Della(Section):
    """`della_linear`, and of each weight only the changes of the majority's sign."""

    name: Literal["della"] = "della"
    """`della`: random changes by rank, signs elected."""
    normalize: Normalize = True
    rescale: bool = True
    """Whether kept changes are divided by their probability, so that the expected change stays."""
    lambda_: Lambda = 1.0

    per_model: ClassVar[tuple[Parameter, ...]] = (
        WEIGHT,
        DENSITY,
        Parameter(
            "epsilon",
            "How far the probability of a row's largest and smallest change is from the density.",
            0.15,
            0.0,
            1.0,
        ),
    )
    needs_base: ClassVar[NeedsBase] = "required"
    num_models: ClassVar[NumModels] = (1, None)

    def check(self, *, parameters: Parameters, settings: Settings, has_base: bool) -> None:
        """See `Method.check`."""
        if settings["normalize"]:
            check_weights(values(parameters, "weight"))
        check_epsilons(values(parameters, "density"), values(parameters, "epsilon"))

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
        return della(
            tensors,
            required(base),
            weights_M=values(parameters, "weight"),
            densities_M=values(parameters, "density"),
            epsilons_M=values(parameters, "epsilon"),
            normalize=bool(settings["normalize"]),
            rescale=bool(settings["rescale"]),
            scale=float(settings["lambda"]),
            generator=generator,
        )
