"""What was done of a chain: which of its stages are complete, go on, or must be trained anew, and why.

Layout of a chain's folder:
    chain.yaml                       the stages in full
    stages.json                      which folder each stage is in, from what it started, and its rows
    ID/, ID-2/                       the runs of a stage; the highest number counts
    ID/merged/                       its adapter folded into its base, where a later stage starts from that
    comparison.json, comparison.md   every stage on every stage's held-out rows
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ftk.core.atomic import atomic_write
from ftk.core.errors import RecipeError
from ftk.recipe.load import LoadedRecipe
from ftk.recipe.stages import LoadedStage
from ftk.runs.folder import MAY_CHANGE, RunFolder, changes_of, latest_folder, next_folder

STATE = "stages.json"
MAX_SHOWN = 3
"""Differences of a stage that are told."""
OF_THE_LENGTH = ("training.epochs", "training.max_steps")
COMPLETE_MAY_CHANGE = tuple(key for key in MAY_CHANGE if key not in OF_THE_LENGTH)
"""What does not make a finished stage another. Its length may change only while it runs."""


@dataclass(frozen=True)
class Standing:
    """Where a stage stands."""

    status: Literal["complete", "unfinished", "new"]
    folder: Path
    note: str | None = None
    """Why it is trained anew, where it was trained before."""


def choose_chain_folder(wanted: Path, *, resume: bool, fresh: bool) -> tuple[Path, str | None]:
    """The chain's folder, and what a person should know of the choice; nothing is written yet.

    Raises:
        RecipeError: `resume` insists where there is no chain.
    """
    latest = latest_folder(wanted)
    if latest is not None and (latest / STATE).is_file() and not fresh:
        return latest, None
    if resume:
        raise RecipeError(f"there is no chain to resume in {wanted}. Leave --resume out to start one")
    if latest is None:
        return wanted, None
    path = next_folder(wanted)
    reason = "is left as it is (--fresh)" if fresh else "is not the folder of a chain"
    return path, f"{latest} {reason}; this chain goes to {path}"


def standing(
    stage: LoadedStage, recipe: LoadedRecipe, wanted: Path, state: "State", *, rows: str, fresh: bool = False
) -> Standing:
    """Where a stage stands whose recipe, from the model that it starts from now, is `recipe`.

    Args:
        stage: which.
        recipe: with the model that it starts from.
        wanted: its folder where it was never trained anew.
        state: of the chain.
        rows: what tells the rows that it learns from.
        fresh: whether it shall be trained anew, also where its folder is none of the chain's own.
    """
    latest = latest_folder(wanted)
    if latest is None:
        return Standing("new", wanted)
    if fresh:
        return _anew(wanted, f"{latest} is left as it is (--fresh)")
    resolved = stage.resolved(recipe)
    is_finished = RunFolder(latest, resumes=False).is_finished
    changes = changes_of(latest, resolved, may_change=COMPLETE_MAY_CHANGE if is_finished else MAY_CHANGE)
    if changes is None:
        return _anew(wanted, f"{latest} is not an ftk run folder")
    own = [change for change in changes if not change.startswith("model.id: ")]
    if not state.learned_from(latest, rows):
        own.insert(0, "the files of data.train have changed")
    if own:
        told = "; ".join(own[:MAX_SHOWN]) + (f"; and {len(own) - MAX_SHOWN} more" if len(own) > MAX_SHOWN else "")
        return _anew(wanted, f"stage {stage.id} is not as it was in {latest} ({told})")
    if changes or not state.started_from(latest, recipe.recipe.model.id):
        origin = stage.start.id if stage.start is not None else "model"
        return _anew(wanted, f"stage {stage.id} in {latest} is stale: it started from another {origin}")
    return Standing("complete" if is_finished else "unfinished", latest)


def _anew(wanted: Path, reason: str) -> Standing:
    folder = next_folder(wanted)
    return Standing("new", folder, f"{reason}: it is trained anew in {folder}")


class State:
    """What `stages.json` keeps."""

    def __init__(self, folder: Path) -> None:
        """
        Raises:
            RecipeError: the file cannot be read.
        """
        self._path = folder / STATE
        self._runs: dict[str, Any] = {}
        if self._path.exists():
            try:
                self._runs = dict(json.loads(self._path.read_text(encoding="utf-8"))["runs"])
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise RecipeError(
                    f"cannot be read ({type(error).__name__}). Remove it, and its stages are known by their recipes "
                    "alone; or start the chain anew with --fresh",
                    place=str(self._path),
                ) from error

    def started_from(self, folder: Path, model: str) -> bool:
        """Whether the run in `folder` began with what `model` is now; also where nothing tells."""
        return self._noted(folder, "start") in (None, made(Path(model)))

    def learned_from(self, folder: Path, rows: str) -> bool:
        """Whether the run in `folder` learned from these rows; also where nothing tells."""
        return self._noted(folder, "rows") in (None, rows)

    def begin(self, stage: str, folder: Path, *, model: str, rows: str) -> None:
        """Write down from what a run begins, and from which rows it learns.

        Raises:
            RecipeError: the folder cannot be written.
        """
        self._runs[self._name(folder)] = {"stage": stage, "start": made(Path(model)), "rows": rows}
        self.write()

    def _noted(self, folder: Path, what: str) -> object:
        noted = self._runs.get(self._name(folder))
        return noted.get(what) if isinstance(noted, dict) else None

    def _name(self, folder: Path) -> str:
        """By its place in the chain's folder, which may be moved; of one elsewhere in full."""
        return folder.name if folder.parent == self._path.parent else str(folder)

    def write(self) -> None:
        """
        Raises:
            RecipeError: the folder cannot be written.
        """
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(self._path, json.dumps({"runs": self._runs}, indent=2) + "\n")
        except OSError as error:
            raise RecipeError(
                f"{self._path.parent} cannot be written: {error.strerror}. Name another folder, such as "
                "output.folder=runs/mine",
                place="output.folder",
            ) from error


def made(model: Path) -> str:
    """What tells the model of a finished run from that of another one in its folder: its report holds the times.

    Args:
        model: the run's folder, or one in it. Of a model that no run has made, nothing tells.
    """
    reports = (folder / "report.json" for folder in (model.expanduser(), model.expanduser().parent))
    report = next((path for path in reports if path.is_file()), None)
    return "" if report is None else hashlib.sha256(report.read_bytes()).hexdigest()
