"""What `ftk eval` found, and the batches it looks at."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftk.core.types import Batch, Examples
from ftk.data.batches import evaluation_batches
from ftk.runs.answers import Answered
from ftk.runs.forward_size import forward_tokens
from ftk.runs.ready_model import ReadyModel


@dataclass(frozen=True)
class Evaluation:
    """How good a model is."""

    losses: Mapping[str, float]
    answered: tuple[Answered, ...]
    """One for each number of examples in the prompt."""
    num_examples: int
    seconds: float
    answers_file: Path | None

    @property
    def metrics(self) -> dict[str, float]:
        """All figures; those with k examples in the prompt as `metric@k`."""
        named = dict(self.losses)
        for one in self.answered:
            suffix = f"@{one.num_shots}" if one.num_shots else ""
            named |= {f"{name}{suffix}": value for name, value in one.metrics.items()}
        return named

    def as_json(self) -> dict[str, Any]:
        return {
            "metrics": self.metrics,
            "num_examples": self.num_examples,
            "seconds": self.seconds,
            "answers_file": None if self.answers_file is None else str(self.answers_file),
        }


def batches_of(examples: Examples, model: ReadyModel) -> Sequence[Batch]:
    """Held-out rows as the model is given them."""
    device = next(model.causal_lm.parameters()).device
    return evaluation_batches(examples, tokens_per_batch=forward_tokens(device), pad_token_id=model.pad_token_id)
