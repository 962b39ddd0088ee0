"""What it takes to have a model answer while it is trained, as GRPO does between its steps.

Source: Shao et al. 2024 (arXiv:2402.03300), section 4.1: a group of answers to one prompt is drawn from the model as it
is, their log-probabilities under it are taken, and then a step is made.
"""

from dataclasses import asdict, dataclass

from ftk.memory.architecture import Architecture
from ftk.memory.communication import shares
from ftk.memory.head import budget_of
from ftk.memory.kv_cache import kv_cache_bytes
from ftk.memory.parameters import Inventory
from ftk.memory.setup import Setup
from ftk.memory.stored import adapter_weights, trained_sizes, weights_bytes


@dataclass(frozen=True, slots=True)
class Asked:
    """The answers that are drawn together on one device."""

    answers: int
    length: int
    """Tokens of each, its prompt among them."""


@dataclass(frozen=True, slots=True)
class Rollout:
    """Bytes on one device while answers are drawn and scored."""

    answers: int
    length: int
    weights: int
    """As stored, adapters with them; whole on each device however training divides them."""
    optimizer: int
    """States that wait for the step."""
    kv_cache: int
    decoding: int
    """What a token of every answer needs for the while."""
    scoring: int
    """What log-probabilities of a micro-batch of the answers need for the while; the cache is gone by then."""
    overhead: int
    """What the process takes beside tensors."""

    @property
    def total(self) -> int:
        """The most at once."""
        standing = self.weights + self.optimizer + self.overhead
        return standing + max(self.kv_cache + self.decoding, self.scoring)

    def as_json(self) -> dict[str, int]:
        """`answers`, `length`, and bytes by kind with `total_bytes`."""
        values = asdict(self)
        counts = {name: values.pop(name) for name in ("answers", "length")}
        return counts | {f"{kind}_bytes": value for kind, value in values.items()} | {"total_bytes": self.total}


def decoding_bytes(architecture: Architecture, *, rows: int, number_bytes: int) -> int:
    """What a step of decoding needs for the while: float32 logits, and the states of one layer."""
    states = 4 * architecture.hidden + 3 * architecture.intermediate
    return rows * (4 * architecture.vocabulary + number_bytes * states)


def rollout_bytes(
    architecture: Architecture, weights: Inventory, setup: Setup, asked: Asked, *, overhead: int
) -> Rollout:
    """What a rollout takes on one device beside what training keeps there.

    Derivation: nothing is kept for a backward pass, so that of a pass over the micro-batch's tokens the states of one
    layer are alive, or the last ones and one chunk of logits, which are float32, beside 16-bit ones where those come.
    """
    width, share = setup.compute_bytes, shares(setup)
    added = adapter_weights(weights, setup.adapter) if setup.adapter else 0
    stored = weights_bytes(weights, number_bytes=setup.frozen_bytes, stored=setup.stored) + 4 * added
    states = sum(setup.state_bytes(size) for size in trained_sizes(weights, setup.adapter)) * share.optimizer
    tokens = min(setup.rows, asked.answers) * asked.length
    chunk = min(tokens, budget_of(setup, architecture.vocabulary).chunk_tokens)
    logits = chunk * architecture.vocabulary * (4 if width == 4 else 4 + width)
    layer = width * tokens * (4 * architecture.hidden + 3 * architecture.intermediate)
    return Rollout(
        answers=asked.answers,
        length=asked.length,
        weights=stored,
        optimizer=0 if share.on_host else round(states),
        kv_cache=kv_cache_bytes(architecture, rows=asked.answers, length=asked.length, number_bytes=width),
        decoding=decoding_bytes(architecture, rows=asked.answers, number_bytes=width),
        scoring=max(layer, width * tokens * architecture.hidden + logits),
        overhead=overhead,
    )
