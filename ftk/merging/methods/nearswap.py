"""`nearswap`: the other model's weights where they are near to the base's. Shapes: C elements of a chunk."""

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Generator, Tensor

from ftk.core.config import Section
from ftk.merging.chunks import each_chunk
from ftk.merging.method import NeedsBase, NumModels, Parameter, Parameters, Settings, required
from ftk.merging.task_vectors import TaskVectors

_NEAREST = 1e-6
"""Differences count as no smaller than this."""


def nearswap(tensor: Tensor, base: Tensor, *, t: float) -> Tensor:
    """The base moved towards the other tensor by `t` over their distance, element by element, at most all the way.

    Elements nearer than `t` are the other's; of those further off, each moves by `t`.

    Source: alchemonaut 2024, https://huggingface.co/alchemonaut/QuartetAnemoi-70B-t0.0001
    """
    vectors = TaskVectors([tensor], base)
    out = torch.empty(vectors.shape, dtype=vectors.dtype)
    flat_out = out.view(-1)

    def swap(piece: slice) -> None:
        delta_C = vectors.delta(0, piece).to(vectors.computed)
        share_C = delta_C.abs().clamp_(min=_NEAREST).reciprocal_().mul_(t).clamp_(0, 1)
        flat_out[piece] = delta_C.mul_(share_C).add_(vectors.base(piece).to(vectors.computed))

    each_chunk(swap, vectors.num_elements)
    return out


class Nearswap(Section):
    """Takes another model's weights where they hardly differ from the base, and nudges the rest towards it."""

    name: Literal["nearswap"] = "nearswap"
    """`nearswap`: by the distance of each weight."""
    t: Annotated[float, Field(ge=0)]
    """How far a weight moves at most; 0.0001 is customary."""

    per_model: ClassVar[tuple[Parameter, ...]] = ()
    needs_base: ClassVar[NeedsBase] = "required"
    num_models: ClassVar[NumModels] = (1, 1)

    def check(self, *, parameters: Parameters, settings: Settings, has_base: bool) -> None:
        """See `Method.check`: there are no numbers but settings with ranges of their own."""

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
        return nearswap(tensors[0], required(base), t=float(settings["t"]))
