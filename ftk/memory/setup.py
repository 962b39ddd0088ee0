"""What a training step does to a model, as plain numbers."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Attention = Literal["eager", "sdpa", "flash"]
Strategy = Literal["ddp", "zero1", "zero2", "zero3", "fsdp", "fsdp_offload"]

STRATEGIES: tuple[Strategy, ...] = ("ddp", "zero1", "zero2", "zero3", "fsdp", "fsdp_offload")
"""How a model may be spread over devices. ftk trains with `ddp`, `fsdp` and `fsdp_offload`; the others are answered for
comparison."""


@dataclass(frozen=True, slots=True)
class Adapter:
    """Low-rank updates beside some matrices."""

    rank: int
    targets: frozenset[str] | None
    """Last parts of the names of the matrices that have one; None for all but the head, experts included."""
    dropout: bool = False
    decomposed: bool = False
    """Whether the magnitude of each weight is trained apart from its direction (DoRA)."""
    beside: frozenset[str] = frozenset()
    """What is trained whole beside the updates, in copies of its own: `embeddings`, `head`, `norms`."""

    def adapts(self, name: str) -> bool:
        """Whether the matrix of this name has an update beside it."""
        if self.targets is None:
            return True
        return any(name == target or name.endswith(f".{target}") for target in self.targets)


@dataclass(frozen=True, slots=True)
class Stored:
    """A format of frozen matrices."""

    name: str
    bits: float
    """Of a weight, without constants."""
    block: int | None
    """Weights that share a constant; None where each row has one."""
    double: bool = False
    """Whether the constants are quantized too."""


def _adam(num_weights: int) -> int:
    return 8 * num_weights


def _in_place(num_weights: int) -> int:
    return 0


@dataclass(frozen=True, slots=True)
class Setup:
    """One training step on one device."""

    rows: int
    """Of a micro-batch."""
    length: int
    """Tokens of a row, padding included."""
    scored: int
    """Tokens of a micro-batch that the output head is asked about."""
    packed: bool = False
    """Whether a row holds several documents, which a mask keeps apart."""
    device: Literal["cuda", "cpu"] = "cuda"
    device_bytes: int | None = None
    """Memory of the device; None where it is not known."""
    compute_bytes: int = 2
    """Of a number in which matrices are multiplied."""
    frozen_bytes: int = 2
    """Of a weight that does not move."""
    adapter: Adapter | None = None
    """None where every weight is trained."""
    stored: Stored | None = None
    """Format of the frozen matrices; None where they are plain numbers."""
    state_bytes: Callable[[int], int] = _adam
    """Bytes that the optimizer keeps for one trained parameter of so many weights."""
    update_bytes: Callable[[int], int] = _in_place
    """Bytes that it takes for the while to update one of so many."""
    decay_copies: Literal["none", "each", "all"] = "none"
    """Gradients to which weight decay is added in a copy: none, one after another, or all at once."""
    checkpointing: bool = False
    loss_chunk: int | None = None
    """Tokens whose logits exist at once; None for what suits the device."""
    accumulates: bool = False
    """Whether a step has several micro-batches, between which gradients stay."""
    attention: Attention = "sdpa"
    processes: int = 1
    strategy: Strategy = "ddp"

    @property
    def tokens(self) -> int:
        """Of a micro-batch, padding included."""
        return self.rows * self.length
