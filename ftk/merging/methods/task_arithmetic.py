"""`task_arithmetic`: weighted changes, summed onto the base. Shapes: M models."""

from collections.abc import Sequence
from typing import ClassVar, Literal

from torch import Generator, Tensor

from ftk.core.config import Section
from ftk.merging.method import (
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
from ftk.merging.task_settings import Lambda, Normalize
from ftk.merging.weighted_sum import weighted_sum


def task_arithmetic(
    tensors_M: Sequence[Tensor],
    base: Tensor,
    *,
    weights_M: Sequence[float],
    normalize: bool = False,
    scale: float = 1.0,
) -> Tensor:
    """The base plus `scale` times the weighted sum of the models' differences to it.

    Raises:
        MergeError: the weights sum to zero and are to be divided by.

    Source: Ilharco et al. 2022 (arXiv:2212.04089), section 2.
    """
    total = 1.0
    if normalize:
        check_weights(weights_M)
        total = sum(weights_M)
    factors_M = [scale * weight / total for weight in weights_M]
    return weighted_sum([*tensors_M, base], [*factors_M, 1 - sum(factors_M)])


class TaskArithmetic(Section):
    """What models learned, added to their base; with a negative weight subtracted from it."""

    name: Literal["task_arithmetic"] = "task_arithmetic"
    """`task_arithmetic`: sums of changes."""
    normalize: Normalize = False
    lambda_: Lambda = 1.0

    per_model: ClassVar[tuple[Parameter, ...]] = (WEIGHT,)
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
        return task_arithmetic(
            tensors,
            required(base),
            weights_M=values(parameters, "weight"),
            normalize=bool(settings["normalize"]),
            scale=float(settings["lambda"]),
        )
