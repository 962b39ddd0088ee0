"""`passthrough`: one model's tensor, perhaps scaled; with slices of layers it stacks models."""

from collections.abc import Sequence
from typing import ClassVar, Literal

from torch import Generator, Tensor

from ftk.core.config import Section
from ftk.merging.method import NeedsBase, NumModels, Parameter, Parameters, Settings, values
from ftk.merging.weighted_sum import weighted_sum


def passthrough(tensor: Tensor, *, scale: float = 1.0) -> Tensor:
    """The tensor times `scale`; at 1 the tensor itself."""
    return tensor if scale == 1 else weighted_sum([tensor], [scale])


class Passthrough(Section):
    """Tensors as they are: with slices of layers of one or more models it builds a deeper one of them."""

    name: Literal["passthrough"] = "passthrough"
    """`passthrough`: tensors as they are, or scaled."""

    per_model: ClassVar[tuple[Parameter, ...]] = (
        Parameter(
            "scale", "Factor on the tensor. 0 on `o_proj` and `down_proj` makes a layer add nothing.", default=1.0
        ),
    )
    needs_base: ClassVar[NeedsBase] = "never"
    num_models: ClassVar[NumModels] = (1, 1)

    def check(self, *, parameters: Parameters, settings: Settings, has_base: bool) -> None:
        """See `Method.check`: any scale has a result."""

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
        return passthrough(tensors[0], scale=values(parameters, "scale")[0])
