"""`breadcrumbs_ties`: middling changes of each model, summed where signs agree. Shapes: M models."""

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


def breadcrumbs_ties(
    tensors_M: Sequence[Tensor],
    base: Tensor,
    *,
    weights_M: Sequence[float],
    densities_M: Sequence[float],
    gammas_M: Sequence[float],
    normalize: bool = False,
    rescale: bool = False,
    scale: float = 1.0,
) -> Tensor:
    """The base plus the weighted sum of changes of middling size, of those with the elected sign.

    Of each model the share `gamma` of the largest changes is left out, and of the others the share `density` of all is
    kept that are largest.

    Raises:
        MergeError: the weights sum to zero and are to be divided by.

    Source: Davari and Belilovsky 2023 (arXiv:2312.06795), section 3; signs as in arXiv:2306.01708.
    """
    vectors = TaskVectors(tensors_M, base)
    kept_M = without_outliers(vectors, densities_M, gammas_M, rescale=rescale)
    return vectors.merge(kept_M, weights_M=weights_M, elect_signs=True, normalize=normalize, scale=scale)


class BreadcrumbsTies(Section):
    """`breadcrumbs`, and of each weight only the changes of the majority's sign."""

    name: Literal["breadcrumbs_ties"] = "breadcrumbs_ties"
    """`breadcrumbs_ties`: changes of middling size, signs elected."""
    normalize: Normalize = False
    rescale: bool = False
    """Whether kept changes are enlarged so that their magnitudes sum to as much as before."""
    lambda_: Lambda = 1.0

    per_model: ClassVar[tuple[Parameter, ...]] = (
        WEIGHT,
        DENSITY,
        Parameter("gamma", "Share of the largest changes, which are left out.", default=0.01, lowest=0.0, highest=1.0),
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
        return breadcrumbs_ties(
            tensors,
            required(base),
            weights_M=values(parameters, "weight"),
            densities_M=values(parameters, "density"),
            gammas_M=values(parameters, "gamma"),
            normalize=bool(settings["normalize"]),
            rescale=bool(settings["rescale"]),
            scale=float(settings["lambda"]),
        )
