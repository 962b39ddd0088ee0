"""The work of training, and the time and money that it takes at a stated pace. All of it is an estimate."""

from dataclasses import dataclass

from ftk.memory.architecture import Architecture
from ftk.memory.parameters import Inventory


@dataclass(frozen=True, slots=True)
class Work:
    """Floating-point operations of a training run."""

    per_token: float
    tokens: int

    @property
    def total(self) -> float:
        """Of all tokens."""
        return self.per_token * self.tokens

    def seconds(self, *, tflops: float, utilisation: float, devices: int) -> float:
        """Time at `utilisation` of what the devices can do at most."""
        return self.total / (tflops * 1e12 * utilisation * devices)


def flops_per_token(
    weights: Inventory, architecture: Architecture | None, *, length: int, trains_all: bool, checkpointing: bool
) -> float:
    """Operations for a token, forward and backward.

    Two for each weight that multiplies in the forward pass, two for the gradient to its input, and two for its own
    where it is trained; attention's products of queries with keys and of probabilities with values, of which a causal
    row needs half: 2 * length * width * layers in the forward pass. Checkpointing repeats the forward pass of layers.

    Source: Kaplan et al. 2020 (arXiv:2001.08361), table 1; Chowdhery et al. 2022 (arXiv:2204.02311), which
    count attention too.
    """
    head = weights.head.num_weights if weights.head is not None else 0
    layers = sum(linear.num_weights for linear in weights.linears) + sum(one.num_weights for one in weights.fused)
    layers -= weights.inactive
    attention = 0
    if architecture is not None:
        sliding, window = architecture.num_sliding_layers, architecture.sliding_window or length
        seen = (architecture.num_layers - sliding) * length + sliding * min(length, window)
        attention = 2 * seen * architecture.queries
    own = 2 if trains_all else 0
    repeated = 2 * layers + attention if checkpointing else 0
    return (4 + own) * (layers + head) + 3 * attention + repeated
