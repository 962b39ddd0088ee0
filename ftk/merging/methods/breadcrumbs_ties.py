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
from ftk.merging.methods.breadcrumbs import GAMMA, breadcrumbs
from ftk.merging.task_settings import Lambda, Normalize


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
            elect_signs=True,
            normalize=bool(settings["normalize"]),
            rescale=bool(settings["rescale"]),
            scale=float(settings["lambda"]),
        )
