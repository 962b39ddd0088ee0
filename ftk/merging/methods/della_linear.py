"""`della_linear`: random changes, large ones more often, summed. Shapes: M models."""

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

EPSILON = Parameter(
    "epsilon",
    "How far the probability of a row's largest and smallest change is from the density.",
    0.15,
    0.0,
    1.0,
)


def della(
    tensors_M: Sequence[Tensor],
    base: Tensor,
    *,
    weights_M: Sequence[float],
    densities_M: Sequence[float],
    epsilons_M: Sequence[float],
    elect_signs: bool,
    normalize: bool,
    rescale: bool,
    scale: float,
    generator: Generator,
) -> Tensor:
    """The base plus the weighted sum of changes kept at random by rank, of all or of those with the elected sign.

    In each row the smallest change is kept with probability density - epsilon, the largest with density + epsilon,
    those between in even steps. Kept changes are divided by their probability if `rescale`; mergekit instead enlarges
    them all by the ratio of the sums of magnitudes before and after.

    Raises:
        MergeError: the weights sum to zero and are to be divided by,
            or a probability would leave (0, 1).

    Source: Deep et al. 2024 (arXiv:2406.11617), section 3, which elects signs.
    """
    vectors = TaskVectors(tensors_M, base)
    kept_M = by_magnitude_at_random(
        densities_M, epsilons_M, row_length=vectors.row_length, rescale=rescale, generator=generator
    )
    return vectors.merge(
        kept_M,
        weights_M=weights_M,
        elect_signs=elect_signs,
        normalize=normalize,
        scale=scale,
        row_length=vectors.row_length,
    )


class DellaLinear(Section):
    """Drops changes at random, small ones more often than large ones, and enlarges the rest."""

    name: Literal["della_linear"] = "della_linear"
    """`della_linear`: random changes by rank."""
    normalize: Normalize = False
    rescale: bool = True
    """Whether kept changes are divided by their probability, so that the expected change stays."""
    lambda_: Lambda = 1.0

    per_model: ClassVar[tuple[Parameter, ...]] = (
        WEIGHT,
        DENSITY,
        EPSILON,
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
            elect_signs=False,
            normalize=bool(settings["normalize"]),
            rescale=bool(settings["rescale"]),
            scale=float(settings["lambda"]),
            generator=generator,
        )
