"""What stays of a run and what is seen of it: metrics.jsonl, evaluations.jsonl, curves.png, progress, trackers."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from ftk.train.curves import draw_curves
from ftk.train.display import Display, Lines, Silent, open_display
from ftk.train.json_lines import JsonLines
from ftk.train.peak_memory import peak_memory_bytes
from ftk.train.progress import Progress
from ftk.train.step import StepResult
from ftk.train.trackers import Trackers, check_trackers
from ftk.train.verdict import Curve

if TYPE_CHECKING:
    from accelerate import Accelerator


class Observer:
    """Writes and shows what happens. On processes other than the first it does nothing."""

    def __init__(
        self,
        folder: Path,
        *,
        accelerator: "Accelerator",
        log_every: int = 1,
        trackers: Sequence[str] = (),
        config: Mapping[str, Any] | None = None,
    ) -> None:
        """`folder` is the run's. `config` is the recipe, for the trackers.

        Raises:
            SetupError: the package of a tracker is missing.
        """
        check_trackers(trackers)
        self._folder = folder
        self._accelerator = accelerator
        self._log_every = log_every
        self._tracker_names = trackers
        self._config = config or {}
        self._is_main = accelerator.is_main_process
        self._display: Display = Silent()
        self._is_begun = False
        self.steps: list[dict[str, Any]] = []
        """The lines of metrics.jsonl, those before a resume included."""
        self.evaluations: list[dict[str, Any]] = []
        """The lines of evaluations.jsonl."""

    def __enter__(self) -> Self:
        # Before `begin` there are sentences to say, but no files yet.
        self._display = Lines(total_steps=0, first_step=0) if self._is_main else Silent()
        return self

    def __exit__(self, *_: object) -> None:
        """Draw the curves and close everything."""
        self._display.close()
        if not self._is_begun:
            return
        self._trackers.close()
        self._metrics_file.close()
        self._evaluations_file.close()
        if self.steps:
            draw_curves(self._folder / "curves.png", self.steps, self.evaluations)

    def begin(self, progress: Progress, *, total_steps: int) -> None:
        """Open everything. Files are cut back to the step from which the run goes on."""
        self._tokens_before, self._seconds_before = progress.tokens, progress.seconds
        self._total_steps = total_steps
        if not self._is_main:
            return
        self._metrics_file = JsonLines(self._folder / "metrics.jsonl", up_to_step=progress.step)
        self._evaluations_file = JsonLines(self._folder / "evaluations.jsonl", up_to_step=progress.step)
        self.steps, self.evaluations = self._metrics_file.kept, self._evaluations_file.kept
        self._trackers = Trackers(
            self._tracker_names, folder=self._folder, config=self._config, accelerator=self._accelerator
        )
        self._is_begun = True
        self._display = open_display(total_steps=total_steps, first_step=progress.step)

    def step(
        self,
        result: StepResult,
        progress: Progress,
        *,
        learning_rate: float,
        own_learning_rate: float | None = None,
        steps_per_epoch: int | None,
    ) -> None:
        """Note a step, where it is one of those that are logged; the last one always is.

        `own_learning_rate` is that of weights which have another than the rest.
        """
        if not self._is_main or (progress.step % self._log_every and progress.step < self._total_steps):
            return
        seconds = progress.seconds - self._seconds_before
        record: dict[str, Any] = {
            "step": progress.step,
            "epoch": progress.step / steps_per_epoch if steps_per_epoch else None,
            "loss": None if result.skipped else result.loss,
            **result.figures,
            "learning_rate": learning_rate,
            "grad_norm": None if result.skipped else result.grad_norm,
            "tokens": progress.tokens,
            "tokens_per_second": (progress.tokens - self._tokens_before) / seconds if seconds else 0.0,
            "peak_memory_bytes": peak_memory_bytes(self._accelerator.device),
        }
        if own_learning_rate is not None:
            record["also_learning_rate"] = own_learning_rate
        if len(result.terms) > 1:
            record |= result.terms
        if result.skipped:
            record["skipped"] = result.skipped
        self._tokens_before, self._seconds_before = progress.tokens, progress.seconds
        self.steps.append(record)
        self._metrics_file.write(record)
        self._trackers.log(record, step=progress.step)
        self._display.step(record)

    def evaluation(self, metrics: Mapping[str, float], progress: Progress) -> None:
        """Note an evaluation of the model as it is after `progress.step` steps."""
        if not self._is_main:
            return
        # As a resumed run reads them back: the verdict must be the same.
        finite = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        record = {"step": progress.step, **finite}
        self.evaluations.append(record)
        self._evaluations_file.write(record)
        self._trackers.log({f"eval_{name}": value for name, value in metrics.items()}, step=progress.step)
        self.say(f"step {progress.step}: held-out " + "  ".join(f"{k} {v:.4f}" for k, v in metrics.items()))

    def say(self, sentence: str) -> None:
        """Tell a person."""
        self._display.say(sentence)

    def sync(self) -> None:
        """Wait until all lines are on the disk, as they must be before a checkpoint that counts on them."""
        if self._is_main:
            self._metrics_file.sync()
            self._evaluations_file.sync()

    @property
    def curves(self) -> tuple[Curve, Curve]:
        """Loss in training and on held-out rows by step; empty on processes other than the first."""
        return _curve(self.steps), _curve(self.evaluations)


def _curve(records: Sequence[Mapping[str, Any]]) -> Curve:
    return [(record["step"], record["loss"]) for record in records if record.get("loss") is not None]
