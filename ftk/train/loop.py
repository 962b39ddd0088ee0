"""The loop: steps to the end, evaluations and checkpoints in between. It knows not where batches come from."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from torch import nn
from torch.optim import Optimizer

from ftk.core.errors import RecipeError
from ftk.core.interval import Interval
from ftk.core.types import Batch, BatchSource, Objective
from ftk.train.checkpoint import Checkpoints, latest
from ftk.train.evaluations import Evaluations
from ftk.train.observe import Observer
from ftk.train.own_rates import own_learning_rate
from ftk.train.peak_memory import peak_memory_bytes
from ftk.train.progress import Progress
from ftk.train.rehearse import rehearse
from ftk.train.settings import Training
from ftk.train.signals import StopRequest, stop_error
from ftk.train.step import Step
from ftk.train.trained_state import TrainedState
from ftk.train.verdict import Verdict, judge

if TYPE_CHECKING:
    from accelerate import Accelerator


class LearningRateSchedule(Protocol):
    """A factor of the peak learning rate that depends on step and total alone."""

    def factor(self, step: int, total_steps: int) -> float: ...


@dataclass(frozen=True, slots=True)
class FitResult:
    """What came of a run, resumed parts included."""

    steps: int
    seconds: float
    """Time in steps; evaluations and checkpoints apart."""
    tokens: int
    """Real tokens trained on."""
    tokens_per_second: float
    peak_memory_bytes: int
    final_loss: float | None
    """Of the last step."""
    num_skipped: dict[str, int]
    """Steps without an update, by reason."""
    stopped_early: bool
    best_step: int | None
    """Step of the lowest held-out loss, whose model is in `checkpoints/best`."""
    best_loss: float | None
    evaluation: dict[str, float] | None
    """Held-out figures of the last step's model, where the loop measured it."""
    verdict: Verdict


def count_total_steps(*, epochs: float, max_steps: int | None, steps_per_epoch: int | None) -> int:
    """Optimizer steps of a run: `max_steps` wins over `epochs`, a fraction of which is rounded up.

    Raises:
        RecipeError: neither `max_steps` nor the length of the data is known.
    """
    if max_steps is not None:
        return max_steps
    if steps_per_epoch is None:
        raise RecipeError("training.epochs cannot be counted: the data has no known length. Set training.max_steps")
    return max(1, math.ceil(epochs * steps_per_epoch - 1e-9))


def fit(
    *,
    model: nn.Module,
    objective: Objective,
    batches: BatchSource,
    optimizer: Optimizer,
    schedule: LearningRateSchedule,
    total_steps: int,
    accelerator: "Accelerator",
    settings: Training,
    checkpoints: Checkpoints,
    observer: Observer,
    evaluate: Callable[[], Mapping[str, float]] | None = None,
    evaluate_every: Interval | None = None,
    patience: int | None = None,
    min_delta: float = 0.0,
    worst_batch: Batch | None = None,
    describe_rows: Callable[[Sequence[int]], str] = str,
) -> FitResult:
    """Train `model`, as `spread` returned it, to `total_steps`; where there is a checkpoint, from there.

    `evaluate()` measures held-out rows and has `loss` among its figures; it is called on every process, with dropout
    off. Training ends after `patience` evaluations without a fall of the loss by `min_delta`. `worst_batch` is
    rehearsed before the first step.

    Raises:
        RunError: out of memory, or a loss that is not finite.
        Stopped, Interrupted: a signal came; a checkpoint is saved.
    """
    evaluations = Evaluations(evaluate, evaluate_every, patience, min_delta)
    trained = TrainedState(model, optimizer)
    timing = (total_steps, batches.steps_per_epoch)
    parts: dict[str, Any] = {
        "model": model,
        "checkpoints": checkpoints,
        "observer": observer,
        "accelerator": accelerator,
    }
    with StopRequest() as stop, observer:
        step = Step(
            model=model,
            objective=objective,
            optimizer=optimizer,
            accelerator=accelerator,
            max_grad_norm=settings.max_grad_norm,
            on_nonfinite=settings.on_nonfinite,
            describe_rows=describe_rows,
            stop_flags=lambda: stop.flags,
        )
        progress = _go_on(checkpoints, trained, batches, observer, accelerator)
        observer.begin(progress, total_steps=total_steps)
        model.train()
        if worst_batch is not None and progress.step < total_steps:
            states: dict[str, Any] = {"optimizer": optimizer, "state_bytes": settings.optimizer.state_bytes}
            rehearse(step.rehearse, worst_batch, accelerator=accelerator, **states)
        if evaluations.is_due(progress.step, *timing):
            evaluations.run(progress, **parts)
        steps = iter(batches)
        while progress.step < total_steps and not evaluations.are_enough(progress):
            started = time.monotonic()
            learning_rate = settings.learning_rate * schedule.factor(progress.step + 1, total_steps)
            result = step(next(steps), learning_rate=learning_rate)
            progress.count(result, seconds=time.monotonic() - started)
            observer.step(
                result,
                progress,
                learning_rate=learning_rate,
                own_learning_rate=own_learning_rate(optimizer, learning_rate),
                steps_per_epoch=batches.steps_per_epoch,
            )
            error = stop_error(result.stop_flags, step=progress.step)
            if error is None and evaluations.is_due(progress.step, *timing):
                evaluations.run(progress, **parts)
            is_end = error is not None or evaluations.are_enough(progress)
            if is_end or checkpoints.is_due(progress.step, *timing):
                observer.sync()
                checkpoints.save(trained, progress, batches.state_dict(), accelerator)
            if error is not None:
                raise error
    return _result(progress, observer, accelerator, stopped_early=progress.step < total_steps)


def _go_on(
    checkpoints: Checkpoints,
    trained: TrainedState,
    batches: BatchSource,
    observer: Observer,
    accelerator: "Accelerator",
) -> Progress:
    """Put everything back as the last checkpoint has it; a fresh start where there is none."""
    saved = latest(checkpoints.folder, observer.say)
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        checkpoints.clean(saved)
    if saved is None:
        return Progress()
    progress = checkpoints.restore(saved, trained, accelerator, observer.say)
    batches.load_state_dict(saved.state["batches"])
    observer.say(f"going on from step {progress.step}")
    return progress


def _result(progress: Progress, observer: Observer, accelerator: "Accelerator", *, stopped_early: bool) -> FitResult:
    return FitResult(
        steps=progress.step,
        seconds=progress.seconds,
        tokens=progress.tokens,
        tokens_per_second=progress.tokens / progress.seconds if progress.seconds else 0.0,
        peak_memory_bytes=peak_memory_bytes(accelerator.device),
        final_loss=progress.last_loss,
        num_skipped=dict(progress.num_skipped),
        stopped_early=stopped_early,
        best_step=progress.best_step,
        best_loss=progress.best_loss,
        evaluation=progress.evaluation if progress.evaluated_step == progress.step else None,
        verdict=judge(*observer.curves),
    )
