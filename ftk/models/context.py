"""The `model.context` section of a recipe: reading further than the model was trained to."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from ftk.core.config import Section
from ftk.models.rope import RopeScaling
from ftk.models.rope.dynamic import Dynamic
from ftk.models.rope.linear import Linear
from ftk.models.rope.llama3 import Llama3
from ftk.models.rope.ntk import Ntk
from ftk.models.rope.yarn import Yarn


class ShiftedSparseAttention(Section):
    """LongLoRA's attention while training (arXiv:2309.12307): within groups, shifted by half a group in half the heads.

    Computation grows with the length and not with its square. Evaluation and generation attend to everything.
    """

    group: Annotated[int, Field(ge=2)] | None = None
    """Tokens of a group, an even number; by default a quarter of `data.max_length`, or of the model's positions where
    that is not said."""

    @model_validator(mode="after")
    def _halves(self) -> Self:
        if self.group is not None and self.group % 2:
            raise ValueError(f"group is {self.group}, and half of the heads are shifted by half a group: make it even")
        return self


class ContextSettings(Section):
    """How far the model shall read, where that is further than it was trained to."""

    length: Annotated[int, Field(ge=8)] | None = None
    """Positions that the model shall have, in tokens; by default the scaling's `factor` times those it has.

    A table of learned positions (GPT-2, OPT) is stretched to it by interpolation, which needs `tuning: full`."""
    scaling: RopeScaling | None = None
    """How rotary positions reach further: `yarn`, which null means, `linear`, `ntk`, `dynamic` or `llama3`."""
    shifted_sparse_attention: ShiftedSparseAttention | None = None
    """LongLoRA's attention within shifted groups, in training alone; null attends to everything."""

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if not self.extends and (self.shifted_sparse_attention is None or self.scaling is not None):
            raise ValueError(
                "context says neither a length nor a scaling with a factor. Say how far the model shall read"
            )
        return self

    @property
    def extends(self) -> bool:
        """Whether the model gets more positions."""
        return self.length is not None or self.way.factor is not None

    @property
    def way(self) -> Linear | Ntk | Dynamic | Yarn | Llama3:
        """How rotary positions reach further."""
        return Yarn() if self.scaling is None else self.scaling
