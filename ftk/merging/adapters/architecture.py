"""How a model's parameters lie in its files, and what kinds they are, as far as an adapter needs to know."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Piece:
    """The part of a parameter that one tensor on disk holds."""

    parameter: str
    """The parameter, as the model names it."""
    expert: int | None = None
    """Which one along the first dimension, where experts lie on disk one by one."""
    first_row: int = 0
    num_rows: int | None = None
    """Rows of the parameter (of the expert's part of it); None for all."""

    @property
    def is_whole(self) -> bool:
        return self.expert is None and self.first_row == 0 and self.num_rows is None


@dataclass(frozen=True)
class Architecture:
    """What the names of the tensors alone do not tell."""

    pieces: Mapping[str, Piece]
    """What each tensor on disk holds."""
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Of parameters, as the model has them."""
    conv1d: frozenset[str] = frozenset()
    """Modules whose weight is stored as [inputs, outputs], as GPT-2's."""
    own_parameters: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Names of each module's own parameters, in the order in which it has them."""
    transposed_experts: frozenset[str] = frozenset()
    """Modules of fused experts whose parameters are [experts, inputs, outputs]."""
    tied: Mapping[str, str] = field(default_factory=dict)
    """Parameters that are the same as another: the head's as the input embedding's."""
    unread: Mapping[str, str] = field(default_factory=dict)
    """Tensors on disk that hold a parameter in a form that adapters cannot be folded into, and which form."""
    quantizable: frozenset[str] = frozenset()
    """Modules that are stored in few bits where quantization is asked for."""
    is_known: bool = False
    """Whether the model's own code was asked; else every tensor is taken for the parameter of its name."""


def as_named(names: Iterable[str]) -> Architecture:
    """Every tensor on disk is the parameter of its name: true of most models, and cheap to assume."""
    return Architecture({name: Piece(name) for name in names})
