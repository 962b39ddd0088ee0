"""What a person sees of a run, on standard error: a progress bar in a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from ftk.core.tell import tell

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

LINE_SECONDS = 5.0
"""Least time between plain lines, so that a log file stays short."""


class Display(Protocol):
    """Shows steps and sentences."""

    def step(self, record: Mapping[str, Any]) -> None: ...

    def say(self, sentence: str) -> None: ...

    def close(self) -> None: ...


def open_display(*, total_steps: int, first_step: int) -> Display:
    """A bar where standard error is a terminal, else plain lines."""
    if sys.stderr.isatty():
        return Bar(total_steps=total_steps, first_step=first_step)
    return Lines(total_steps=total_steps, first_step=first_step)


class Silent:
    """For processes other than the first."""

    def step(self, record: Mapping[str, Any]) -> None:
        """Nothing is shown."""

    def say(self, sentence: str) -> None:
        """Nothing is said."""

    def close(self) -> None:
        """Nothing is open."""


class Lines:
    """One plain line every few seconds."""

    def __init__(self, *, total_steps: int, first_step: int) -> None:
        self._total = total_steps
        self._first = first_step
        self._start = time.monotonic()
        self._shown = -LINE_SECONDS

    def step(self, record: Mapping[str, Any]) -> None:
        """Show a logged step, unless another was just shown; the last one always."""
        passed = time.monotonic() - self._start
        if passed - self._shown < LINE_SECONDS and record["step"] < self._total:
            return
        self._shown = passed
        left = passed / max(1, record["step"] - self._first) * (self._total - record["step"])
        self.say(f"step {record['step']}/{self._total}  {describe(record)}  left {duration(left)}")

    def say(self, sentence: str) -> None:
        """Print a line."""
        tell(sentence)

    def close(self) -> None:
        """Nothing is open."""


class Bar:
    """A progress bar that rich draws."""

    def __init__(self, *, total_steps: int, first_step: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
        from rich.table import Column

        self._bar: RichProgress = Progress(
            BarColumn(bar_width=10),
            TextColumn("{task.completed}/{task.total}"),
            TimeRemainingColumn(compact=True),
            # Last, and the one that gives way in a narrow terminal.
            TextColumn("{task.description}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")),
            expand=True,
            console=Console(file=sys.stderr),
        )
        self._task = self._bar.add_task("", total=total_steps, completed=first_step)
        self._bar.start()

    def step(self, record: Mapping[str, Any]) -> None:
        """Move the bar."""
        self._bar.update(self._task, completed=record["step"], description=describe(record))

    def say(self, sentence: str) -> None:
        """Print a line above the bar."""
        self._bar.console.print(sentence, markup=False, highlight=False)

    def close(self) -> None:
        """Leave the bar as it stands."""
        self._bar.stop()


def describe(record: Mapping[str, Any]) -> str:
    """One logged step in a few words."""
    loss = "skipped" if record["loss"] is None else f"loss {record['loss']:.4f}"
    return (
        f"{loss}  lr {record['learning_rate']:.2e}  {record['tokens_per_second']:,.0f} tokens/s  "
        f"peak {record['peak_memory_bytes'] / 2**30:.2f} GiB"
    )


def duration(seconds: float) -> str:
    """Seconds as `1:02:03` or `2:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
