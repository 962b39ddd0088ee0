"""Measuring held-out rows while training goes on: when, what the best was, and when enough is enough."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from ftk.core.interval import Interval
from ftk.core.mode import evaluating
from ftk.train import random_state
from ftk.train.checkpoint import Checkpoints
from ftk.train.observe import Observer
from ftk.train.progress import Progress

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass(frozen=True)
class Evaluations:
    """How a run is measured on its way."""

    measure: Callable[[], Mapping[str, float]] | None
    """Figures of the model as it is, `loss` among them; None never measures."""
    every: Interval | None
    """How often; None, too, never measures."""
    patience: int | None
    """Evaluations in a row without a clearly lower loss after which training ends."""
    min_delta: float
    """By how much the loss must fall to be clearly lower, in nats a token."""

    def is_due(self, step: int, total_steps: int, steps_per_epoch: int | None) -> bool:
        """Whether the model is measured after `step`; after the last one it always is."""
        if self.measure is None or self.every is None or step == 0:
            return False
        return step == total_steps or self.every.is_due(step, steps_per_epoch)

    def run(
        self,
        progress: Progress,
        *,
        model: nn.Module,
        checkpoints: Checkpoints,
        observer: Observer,
        accelerator: "Accelerator",
    ) -> None:
        """Measure, unless this step's model has been measured already, and keep the model if it is the best."""
        if self.measure is None or progress.evaluated_step == progress.step:
            return
        # No trace may stay: neither the mode nor a draw of random numbers.
        with evaluating(model), random_state.kept(), torch.no_grad():
            figures = dict(self.measure())
        progress.evaluated_step, progress.evaluation = progress.step, figures
        observer.evaluation(figures, progress)
        if progress.is_new_best(figures["loss"], min_delta=self.min_delta):
            checkpoints.save_best(accelerator)

    def are_enough(self, progress: Progress) -> bool:
        """Whether the loss has not fallen for so long that training ends."""
        return self.patience is not None and progress.num_since_best >= self.patience
