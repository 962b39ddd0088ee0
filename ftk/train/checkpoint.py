"""Checkpoints: all that a run needs to go on as if it had not stopped. Safetensors and JSON only.

Layout of `checkpoints/step-N`:
    weights.safetensors     trained parameters, and buffers that changed
    optimizer.safetensors   the optimizer's tensors, as `parameter/state`
    state.json              counts, place in the data, loss scale, threads, versions, sizes of the other files
    random.json             states of the random generators, one entry a process
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ftk.core.atomic import atomic_folder, remove_folder, remove_leftovers
from ftk.core.errors import RunError
from ftk.core.interval import Interval
from ftk.core.json_values import finite
from ftk.train import random_state
from ftk.train.progress import Progress
from ftk.train.trained_state import TrainedState

if TYPE_CHECKING:
    from accelerate import Accelerator

WEIGHTS, OPTIMIZER, STATE, RANDOM = "weights.safetensors", "optimizer.safetensors", "state.json", "random.json"
FORMAT = 1
"""Number of the layout; a checkpoint of another is not read."""


@dataclass(frozen=True)
class Saved:
    """A checkpoint on the disk that is whole."""

    path: Path
    state: Mapping[str, Any]

    @property
    def step(self) -> int:
        return int(self.state["progress"]["step"])

    @property
    def resolved(self) -> Mapping[str, Any]:
        """What `auto` came to when the run began, such as `micro_batch_tokens`."""
        return dict(self.state["resolved"])


def latest(folder: Path, say: Callable[[str], None]) -> Saved | None:
    """The last checkpoint in `folder` that is whole; damaged ones are passed over, and said. None if there is none.

    Raises:
        RunError: there are checkpoints, and all are damaged.
    """
    damaged = []
    for path in reversed(_in_order(folder)):
        try:
            saved = Saved(path, _read_state(path))
        except (OSError, ValueError, KeyError) as error:
            damaged.append(f"{path} is damaged ({error})")
            continue
        for sentence in damaged:
            say(f"{sentence}; going on from {path.name}")
        return saved
    if damaged:
        raise RunError(f"{'; '.join(damaged)}. No checkpoint is whole: start again with --fresh")
    return None


class Checkpoints:
    """The checkpoints of one run: when they are due, how many stay, and the best."""

    def __init__(
        self,
        folder: Path,
        *,
        every: Interval | None,
        keep: int,
        write_best: Callable[[Path], None],
        resolved: Mapping[str, Any] | None = None,
    ) -> None:
        """`write_best(folder)` writes the model as it is now; it is called on every process.

        `resolved` are JSON values that a resumed run must take over, such as the micro-batch that `auto` found.
        """
        self.folder = folder
        self._every = every
        self._keep = keep
        self._write_best = write_best
        self._resolved = dict(resolved or {})

    @property
    def best(self) -> Path:
        """Where the model of the lowest held-out loss is."""
        return self.folder / "best"

    def is_due(self, step: int, total_steps: int, steps_per_epoch: int | None) -> bool:
        """Whether a checkpoint is saved after `step`; after the last one it always is."""
        return step == total_steps or (self._every is not None and self._every.is_due(step, steps_per_epoch))

    def save(
        self, trained: TrainedState, progress: Progress, place: Mapping[str, Any], accelerator: "Accelerator"
    ) -> None:
        """Publish `step-N`; every process must call this. `place` is the state of the batches."""
        from safetensors.torch import save_file

        is_main = accelerator.is_main_process
        weights = trained.weights(keep=is_main)
        states, numbers = trained.optimizer_states(keep=is_main)
        random_states = _of_all(random_state.capture(), accelerator)
        if is_main:
            with atomic_folder(self.folder / f"step-{progress.step}") as path:
                save_file(weights, path / WEIGHTS)
                save_file(states, path / OPTIMIZER)
                (path / RANDOM).write_text(json.dumps(random_states))
                (path / STATE).write_text(
                    json.dumps(
                        {
                            "format": FORMAT,
                            "progress": finite(progress.to_json()),
                            "batches": dict(place),
                            "optimizer_numbers": numbers,
                            "loss_scale": accelerator.scaler.state_dict() if accelerator.scaler is not None else None,
                            "num_processes": accelerator.num_processes,
                            "num_threads": torch.get_num_threads(),
                            "torch": torch.__version__,
                            "resolved": self._resolved,
                            "files": {file.name: file.stat().st_size for file in sorted(path.iterdir())},
                        },
                        indent=1,
                    )
                )
            for old in _in_order(self.folder)[: -self._keep]:
                remove_folder(old)
        accelerator.wait_for_everyone()

    def save_best(self, accelerator: "Accelerator") -> None:
        """Write the model as it is now to `checkpoints/best`; every process must call this."""
        self._write_best(self.best)
        accelerator.wait_for_everyone()

    def restore(
        self, saved: Saved, trained: TrainedState, accelerator: "Accelerator", say: Callable[[str], None]
    ) -> Progress:
        """Put everything back as it was, the place in the data apart; what is not as it was is said.

        Raises:
            RunError: the checkpoint is of another model or tuning.
        """
        state = saved.state
        with _reader(saved.path / WEIGHTS) as (names, read):
            trained.load_weights(names, read)
        with _reader(saved.path / OPTIMIZER) as (names, read):
            trained.load_optimizer_states(names, read, state["optimizer_numbers"])
        if accelerator.scaler is not None and state["loss_scale"] is not None:
            accelerator.scaler.load_state_dict(state["loss_scale"])
        if torch.get_num_threads() != state["num_threads"] and accelerator.device.type == "cpu":
            say(f"computing with {state['num_threads']} threads, as before, instead of {torch.get_num_threads()}")
            torch.set_num_threads(state["num_threads"])
        self._restore_random_state(saved, accelerator, say)
        if state["torch"] != torch.__version__:
            say(f"torch is {torch.__version__}, and was {state['torch']}: figures may differ in the last digits")
        return Progress.from_json(state["progress"])

    def clean(self, saved: Saved | None) -> None:
        """Remove what killed writes left, and damaged checkpoints after `saved`. For the first process alone."""
        if self.folder.is_dir():
            remove_leftovers(self.folder)
            for path in _in_order(self.folder):
                if saved is not None and _step_of(path) > saved.step:
                    remove_folder(path)

    def _restore_random_state(self, saved: Saved, accelerator: "Accelerator", say: Callable[[str], None]) -> None:
        states = json.loads((saved.path / RANDOM).read_text())
        if len(states) != accelerator.num_processes:
            say(
                f"{accelerator.num_processes} processes go on where {len(states)} stopped: "
                "the same examples in the same order, but other draws of dropout"
            )
        if accelerator.process_index < len(states):
            random_state.restore(states[accelerator.process_index])


def _in_order(folder: Path) -> list[Path]:
    paths = folder.glob("step-*") if folder.is_dir() else ()
    return sorted((path for path in paths if re.fullmatch(r"step-\d+", path.name)), key=_step_of)


def _step_of(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def _read_state(path: Path) -> Mapping[str, Any]:
    """The state of a checkpoint, all files of which have their sizes and readable headers."""
    state: Mapping[str, Any] = json.loads((path / STATE).read_text())
    if state["format"] != FORMAT:
        raise ValueError(f"it has layout {state['format']}, and this ftk reads layout {FORMAT}")
    for name, size in state["files"].items():
        found = (path / name).stat().st_size
        if found != size:
            raise ValueError(f"{name} has {found} bytes instead of {size}")
    for name in (WEIGHTS, OPTIMIZER):
        with _reader(path / name):
            pass
    json.loads((path / RANDOM).read_text())
    return state


@contextmanager
def _reader(path: Path) -> Iterator[tuple[set[str], Callable[[str], Tensor]]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            yield set(file.keys()), file.get_tensor
    except SafetensorError as error:
        raise ValueError(f"{path.name}: {error}") from error


def _of_all(value: Any, accelerator: "Accelerator") -> list[Any]:
    if accelerator.num_processes == 1:
        return [value]
    values: list[Any] = [None] * accelerator.num_processes
    torch.distributed.all_gather_object(values, value)
    return values
