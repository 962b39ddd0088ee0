"""What a merge method is: how it is called, and what it takes of each model and of the whole merge.

Shapes: M models that are merged, the base not among them where the method knows one.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

from torch import Generator, Tensor

NeedsBase = Literal["required", "optional", "never"]
"""Whether a method tells a base from the models; `never`: a base is a model like the others, if it is listed."""
NumModels = tuple[int, int | None]
"""The fewest and the most models, the base apart; None is no bound."""
Parameters = Sequence[Mapping[str, float]]
"""For each model its parameters, by name."""
Settings = Mapping[str, float | bool]
"""The settings of the merge by their names in the file; one that has no value is left out."""


class MergeError(ValueError):
    """Numbers with which a method has no result; the caller adds the place."""


@dataclass(frozen=True)
class Parameter:
    """A number that each model may have of its own. Whoever reads the file of a merge holds it to its range."""

    name: str
    meaning: str
    default: float | None = None
    """None: it must be said."""
    lowest: float = -math.inf
    highest: float = math.inf


class Method(Protocol):
    """What all methods have in common. They are frozen settings and keep nothing."""

    per_model: ClassVar[tuple[Parameter, ...]]
    needs_base: ClassVar[NeedsBase]
    num_models: ClassVar[NumModels]

    def check(self, *, parameters: Parameters, settings: Settings, has_base: bool) -> None:
        """Look at the numbers of one tensor's merge before anything is read; those of `merge`.

        Raises:
            MergeError: together they have no result.
        """
        ...

    def merge(
        self,
        tensors: Sequence[Tensor],
        *,
        base: Tensor | None,
        parameters: Parameters,
        settings: Settings,
        generator: Generator,
    ) -> Tensor:
        """One tensor of the result from that tensor of each model, in the widest dtype among the inputs.

        Args:
            tensors: one a model, of one shape and any floating dtype; they are read only. float32 is computed with,
                float64 where an input has it.
            base: the tensor of the base; None only where `needs_base` allows it.
            parameters: for each of `tensors`, every parameter of `per_model`.
            settings: every setting of the method that has a value, by its name in the file (`lambda`, not `lambda_`).
            generator: seeds what is random.

        Raises:
            MergeError: see `check`, or the tensors have no mean.
        """
        ...


WEIGHT = Parameter("weight", "Share of the model. A negative one subtracts what the model learned.")
DENSITY = Parameter("density", "Share of the changed weights that is kept.", default=1.0, lowest=0.0, highest=1.0)


def values(parameters: Parameters, name: str) -> list[float]:
    """One parameter of all models."""
    return [float(one[name]) for one in parameters]


def check_weights(weights_M: Sequence[float]) -> None:
    """Make sure that weights can be divided by their sum.

    Raises:
        MergeError: they sum to zero.
    """
    # Weights of order 1 that a person means to cancel do so but for rounding.
    if abs(sum(weights_M)) < 1e-8:
        listed = ", ".join(f"{weight:g}" for weight in weights_M)
        raise MergeError(f"the weights {listed} sum to zero, so that they cannot be normalised. Change a weight")


def required(base: Tensor | None) -> Tensor:
    """The base of a method that needs one.

    Raises:
        MergeError: there is none.
    """
    if base is None:
        raise MergeError("the method merges changes of a base model, and none is named. Add base_model")
    return base
