"""TensorBoard, Weights & Biases and MLflow, through Accelerate, where the recipe names them."""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftk.core.errors import SetupError

if TYPE_CHECKING:
    from accelerate import Accelerator


def check_trackers(names: Sequence[str]) -> None:
    """Make sure that the packages of the trackers are there.

    Raises:
        SetupError: one is not; it names the extra that brings it.
    """
    for name in names:
        if find_spec(name) is None:
            raise SetupError(f"training.trackers: {name} is not installed. Install it with: pip install 'ftk[{name}]'")


class Trackers:
    """The trackers of one run; only the first process sends anything."""

    def __init__(
        self, names: Sequence[str], *, folder: Path, config: Mapping[str, Any], accelerator: "Accelerator"
    ) -> None:
        """Start them. `config` is nested; it is stored flat, as `training.learning_rate`.

        Raises:
            SetupError: a package is missing.
        """
        check_trackers(names)
        self._accelerator = accelerator
        self._is_active = bool(names)
        if not names:
            return
        from accelerate.utils import LoggerType

        # The Accelerator is made before the run has a folder.
        accelerator.log_with = [LoggerType(name) for name in names]
        accelerator.project_configuration.set_directories(str(folder / "trackers"))
        accelerator.init_trackers(folder.name, config=_flat(config))

    def log(self, values: Mapping[str, Any], *, step: int) -> None:
        """Send the numbers among `values`."""
        if self._is_active:
            numbers = {key: value for key, value in values.items() if isinstance(value, int | float)}
            self._accelerator.log(numbers, step=step)

    def close(self) -> None:
        """Finish them."""
        for tracker in self._accelerator.trackers if self._is_active else ():
            tracker.finish()
        self._is_active = False


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, int | float | str | bool]:
    flat: dict[str, int | float | str | bool] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value if isinstance(value, int | float | str) else str(value)
    return flat
