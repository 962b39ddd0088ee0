"""`breadcrumbs`: changes without the smallest and the largest of each model, summed. Shapes: M models."""

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
from ftk.merging.sparsify import without_outliers
from ftk.merging.task_settings import Lambda, Normalize
from ftk.merging.task_vectors import TaskVectors

GAMMA = Parameter("gamma", "Share of the largest changes, which are left out.", default=0.01, lowest=0.0, highest=1.0)


def breadcrumbs(
    tensors_M: Sequence[Tensor],
    base: Tensor,
    *,
    weights_M: Sequence[float],
    densities_M: Sequence[float],
    gammas_M: Sequence[float],
    elect_signs: bool,
    normalize: bool,
    rescale: bool,
    scale: float,
) -> Tensor:
    """The base plus the weighted sum of changes of middling size, of all or of those with the elected sign.

    Of each model the share `gamma` of the largest changes is left out, and of the others the share `density` of all is
    kept that are largest.

    Raises:
        MergeError: the weights sum to zero and are to be divided by.

    Source: Davari and Belilovsky 2023 (arXiv:2312.06795), section 3; signs as in arXiv:2306.01708.
    """
    vectors = TaskVectors(tensors_M, base)
    kept_M = without_outliers(vectors, densities_M, gammas_M, rescale=rescale)
    return vectors.merge(kept_M, weights_M=weights_M, elect_signs=elect_signs, normalize=normalize, scale=scale)


class Breadcrumbs(Section):
    """Sums changes without the small ones, which are noise, and without the very largest, which are outliers."""

    name: Literal["breadcrumbs"] = "breadcrumbs"
    """`breadcrumbs`: changes of middling size."""
    normalize: Normalize = False
    rescale: bool = False
    """Whether kept changes are enlarged so that their magnitudes sum to as much as before."""
    lambda_: Lambda = 1.0

    per_model: ClassVar[tuple[Parameter, ...]] = (
        WEIGHT,
        DENSITY,
        GAMMA,
    )
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
        return breadcrumbs(
            tensors,
            required(base),
            weights_M=values(parameters, "weight"),
            densities_M=values(parameters, "density"),
            gammas_M=values(parameters, "gamma"),
            elect_signs=False,
            normalize=bool(settings["normalize"]),
            rescale=bool(settings["rescale"]),
            scale=float(settings["lambda"]),
        )
