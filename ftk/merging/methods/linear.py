"""`linear`: the weighted mean of the models. Shapes: M models."""

from collections.abc import Sequence
from typing import ClassVar, Literal

from torch import Generator, Tensor

from ftk.core.config import Section
from ftk.merging.method import WEIGHT, NeedsBase, NumModels, Parameter, Parameters, Settings, check_weights, values
from ftk.merging.weighted_sum import weighted_sum


def linear(tensors_M: Sequence[Tensor], *, weights_M: Sequence[float], normalize: bool = True) -> Tensor:
    """The sum of weight times tensor, divided by the sum of the weights if `normalize`.

    Raises:
        MergeError: the weights sum to zero and are to be divided by.

    Source: Wortsman et al. 2022 (arXiv:2203.05482), section 2.
    """
    total = 1.0
    if normalize:
        check_weights(weights_M)
        total = sum(weights_M)
    return weighted_sum(tensors_M, [weight / total for weight in weights_M])


class Linear(Section):
    """The weighted mean of the models: the customary first try among finetunes of one base."""

    name: Literal["linear"] = "linear"
    """`linear`: the weighted mean."""
    normalize: bool = True
    """Whether the sum is divided by the sum of the weights."""

    per_model: ClassVar[tuple[Parameter, ...]] = (WEIGHT,)
    needs_base: ClassVar[NeedsBase] = "never"
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
        return linear(tensors, weights_M=values(parameters, "weight"), normalize=bool(settings["normalize"]))
