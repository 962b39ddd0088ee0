"""How far a run has come: plain numbers that a checkpoint keeps as JSON."""

import math
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from ftk.train.step import StepResult


@dataclass
class Progress:
    """Counts of a run, resumed parts included."""

    step: int = 0
    """Optimizer steps, skipped ones included."""
    tokens: int = 0
    """Real tokens trained on."""
    seconds: float = 0.0
    """Time spent in steps and in waiting for their batches; evaluations and checkpoints apart."""
    last_loss: float | None = None
    """Loss of the last step that had one."""
    num_skipped: dict[str, int] = field(default_factory=dict)
    """Steps without an update, by reason."""
    best_loss: float | None = None
    """Lowest held-out loss, in nats a token."""
    best_step: int | None = None
    evaluated_step: int | None = None
    """Step of the last evaluation."""
    evaluation: dict[str, float] | None = None
    """Its figures."""
    num_since_best: int = 0
    """Evaluations in a row without a new best."""

    def count(self, result: StepResult, *, seconds: float) -> None:
        """Add one step."""
        self.step += 1
        self.tokens += result.num_tokens
        self.seconds += seconds
        if result.skipped is None:
            self.last_loss = result.loss
        else:
            self.num_skipped[result.skipped] = self.num_skipped.get(result.skipped, 0) + 1

    def is_new_best(self, loss: float, *, min_delta: float) -> bool:
        """Note a held-out loss; whether it is the lowest by at least `min_delta`, and counts anew for patience.

        The lowest loss of all is kept in any case, however small the gain.
        """
        # A loss that is no number compares as false with everything: as the best, it would stay it for ever.
        best = math.inf if self.best_loss is None else self.best_loss
        is_lowest, is_clear = loss < best, loss < best - min_delta
        self.num_since_best = 0 if is_clear else self.num_since_best + 1
        if is_lowest:
            self.best_loss, self.best_step = loss, self.step
        return is_lowest

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, state: dict[str, Any]) -> Self:
        return cls(**state)
