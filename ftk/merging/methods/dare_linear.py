"""`dare_linear`: random changes of each model, enlarged, summed. Shapes: M models."""

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
from ftk.merging.sparsify import at_random
from ftk.merging.task_settings import Lambda, Normalize
from ftk.merging.task_vectors import TaskVectors


def dare(
    tensors_M: Sequence[Tensor],
    base: Tensor,
    *,
    weights_M: Sequence[float],
    densities_M: Sequence[float],
    elect_signs: bool,
    normalize: bool,
    rescale: bool,
    scale: float,
    generator: Generator,
) -> Tensor:
    """The base plus the weighted sum of changes kept at random, of all or of those with the elected sign.

    Each change is kept with probability `density`, and divided by it if `rescale`: its expectation stays. mergekit
    instead enlarges by the ratio of the sums of magnitudes before and after, which is the same number but for chance.

    Raises:
        MergeError: the weights sum to zero and are to be divided by.

    Source: Yu et al. 2023 (arXiv:2311.03099), equation 1; signs as in arXiv:2306.01708.
    """
    vectors = TaskVectors(tensors_M, base)
    kept_M = at_random(densities_M, rescale=rescale, generator=generator)
    return vectors.merge(kept_M, weights_M=weights_M, elect_signs=elect_signs, normalize=normalize, scale=scale)


class DareLinear(Section):
    """Drops most changes at random and enlarges the rest: changes are so redundant that little is lost."""

    name: Literal["dare_linear"] = "dare_linear"
    """`dare_linear`: random changes."""
    normalize: Normalize = False
    rescale: bool = True
    """Whether kept changes are divided by the density, so that the expected change stays."""
    lambda_: Lambda = 1.0

    per_model: ClassVar[tuple[Parameter, ...]] = (WEIGHT, DENSITY)
    needs_base: ClassVar[NeedsBase] = "required"
    num_models: ClassVar[NumModels] = (1, None)

    def check(self, *, parameters: Parameters, settings: Settings, has_base: bool) -> None:
        """See `Method.check`."""
        if settings["normalize"]:
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
        return dare(
            tensors,
            required(base),
            weights_M=values(parameters, "weight"),
            densities_M=values(parameters, "density"),
            elect_signs=False,
            normalize=bool(settings["normalize"]),
            rescale=bool(settings["rescale"]),
            scale=float(settings["lambda"]),
            generator=generator,
        )
