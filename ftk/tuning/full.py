"""Full tuning: every weight moves."""

from collections.abc import Sequence
from typing import Literal

from torch import nn

from ftk.core.config import Section


class Full(Section):
    """Train every weight. Best quality on much data; needs 16 bytes a parameter with AdamW and float32 weights."""

    name: Literal["full"] = "full"
    """`full`: every weight of the model is trained."""

    def apply(self, model: nn.Module, *, new_token_ids: Sequence[int] = ()) -> nn.Module:
        """The same model, every parameter of which takes gradients, those of new tokens included."""
        model.requires_grad_(True)
        return model

    def own_learning_rate(self, parameter: str) -> float | None:
        """None: all weights move at the run's learning rate."""
        return None
