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
from ftk.merging.methods.della_linear import EPSILON, della
from ftk.merging.sparsify import check_epsilons
from ftk.merging.task_settings import Lambda, Normalize


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
            elect_signs=True,
            normalize=bool(settings["normalize"]),
            rescale=bool(settings["rescale"]),
            scale=float(settings["lambda"]),
            generator=generator,
        )
