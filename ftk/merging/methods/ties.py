"""`ties`: the largest changes of each model, summed where models agree on the sign. Shapes: M models."""

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
from ftk.merging.sparsify import largest
from ftk.merging.task_settings import Lambda, Normalize
from ftk.merging.task_vectors import TaskVectors


def ties(
    tensors_M: Sequence[Tensor],
    base: Tensor,
    *,
    weights_M: Sequence[float],
    densities_M: Sequence[float],
    normalize: bool = True,
    rescale: bool = False,
    scale: float = 1.0,
) -> Tensor:
    """The base plus the changes that survive trimming and the election of signs.

    Of each model the share `density` of changes is kept that are largest. Of each element the sign is elected which the
    weighted sum has, and the models of that sign are summed, by default divided by their weights.

    Raises:
        MergeError: the weights sum to zero and are to be divided by.

    Source: Yadav et al. 2023 (arXiv:2306.01708), algorithm 1.
    """
    vectors = TaskVectors(tensors_M, base)
    kept_M = largest(vectors, densities_M, rescale=rescale)
    return vectors.merge(kept_M, weights_M=weights_M, elect_signs=True, normalize=normalize, scale=scale)


class Ties(Section):
    """Keeps each model's largest changes, and of each weight those of the majority's sign, so that models disturb each
    other less.
    """

    name: Literal["ties"] = "ties"
    """`ties`: trim, elect signs, merge."""
    normalize: Normalize = True
    rescale: bool = False
    """Whether kept changes are enlarged so that their magnitudes sum to as much as before."""
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
        return ties(
            tensors,
            required(base),
            weights_M=values(parameters, "weight"),
            densities_M=values(parameters, "density"),
            normalize=bool(settings["normalize"]),
            rescale=bool(settings["rescale"]),
            scale=float(settings["lambda"]),
        )
