"""Which folder a run lives in: a new one, or that of an unfinished run of the same recipe, which goes on.

Layout of a run folder:
    recipe.yaml, recipe.json   the resolved recipe, for people and for comparing
    environment.json           versions, hardware, git revision
    lock.json                  which process trains here; locked while it does
    metrics.jsonl              one object a logged step
    evaluations/               figures and answers before and after
    checkpoints/               step-N and best
    model/                     the final model
    memory.json                memory expected and measured
    report.json, report.md     what came of it
"""

import fcntl
import json
import os
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftk.core.atomic import atomic_write, try_to_write
from ftk.core.errors import RecipeError

# What may change when a run goes on: none of it alters what was learned up to the checkpoint.
MAY_CHANGE = (
    "training.epochs",
    "training.max_steps",
    "training.micro_batch_size",
    "training.log_every",
    "training.trackers",
    "parallel",
    "evaluation",
    "checkpoint",
    "output.push_to_hub",
)


@dataclass(frozen=True)
class RunFolder:
    """Where a run keeps what explains its result."""

    path: Path
    resumes: bool
    """Whether an unfinished run goes on here."""
    note: str | None = None
    """What a person should know of the choice."""

    @property
    def model(self) -> Path:
        return self.path / "model"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def evaluations(self) -> Path:
        return self.path / "evaluations"

    @property
    def is_finished(self) -> bool:
        return (self.path / "report.json").exists()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Make the folder, and keep other processes from training in it until leaving, or until this process ends.

        Raises:
            RecipeError: another process trains in it, or it cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            file = (self.path / "lock.json").open("a+", encoding="utf-8")
        except OSError as error:
            raise _not_writable(self.path, error) from error
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                file.seek(0)
                raise RecipeError(
                    f"a run is under way in {self.path} ({file.read().strip()}). Let it end, stop it, or start another "
                    "one beside it with --fresh",
                    place="output.folder",
                ) from error
            except OSError:
                # Some network file systems have no locks; a run is worth more than the guard.
                pass
            file.truncate(0)
            file.write(json.dumps({"pid": os.getpid()}))
            file.flush()
            yield

    def begin(self, recipe: Mapping[str, Any], recipe_yaml: str, environment: Mapping[str, Any]) -> None:
        """Write down what will run in the folder.

        Raises:
            RecipeError: the folder cannot be written.
        """
        try:
            atomic_write(self.path / "recipe.yaml", recipe_yaml)
            atomic_write(self.path / "environment.json", json.dumps(environment, indent=2) + "\n")
            atomic_write(self.path / "recipe.json", json.dumps(recipe, indent=2) + "\n")
        except OSError as error:
            raise _not_writable(self.path, error) from error


def choose_folder(wanted: Path, recipe: Mapping[str, Any], *, resume: bool = False, fresh: bool = False) -> RunFolder:
    """The folder of this run; nothing is written yet.

    An unfinished run of the same recipe goes on. A finished run, another run, or anything else that is there is left
    alone, and the next free number is taken.

    Raises:
        RecipeError: the folder cannot be written, or `resume` insists where nothing can go on.
    """
    _check_writable(wanted)
    latest = latest_folder(wanted)
    if latest is None:
        if resume:
            raise RecipeError(f"there is no run to resume in {wanted}. Leave --resume out to start one")
        return RunFolder(wanted, resumes=False)
    changes = changes_of(latest, recipe)
    if not fresh and changes == [] and not RunFolder(latest, resumes=True).is_finished:
        return RunFolder(latest, resumes=True)
    if resume:
        raise RecipeError(_why_not(latest, changes), place=str(latest))
    path = next_folder(wanted)
    reason = "holds a finished run" if RunFolder(latest, resumes=False).is_finished else "holds another run"
    if fresh:
        reason = "is left as it is (--fresh)"
    elif changes is None:
        reason = "is not an ftk run folder"
    return RunFolder(path, resumes=False, note=f"{latest} {reason}; this run goes to {path}")


def latest_folder(wanted: Path) -> Path | None:
    """The highest-numbered folder of this name that has something in it."""
    pattern = re.compile(re.escape(wanted.name) + r"(?:-(\d+))?")
    found: dict[int, Path] = {}
    for path in wanted.parent.glob(f"{wanted.name}*") if wanted.parent.is_dir() else ():
        match = pattern.fullmatch(path.name)
        if match and (not path.is_dir() or any(path.iterdir())):
            found[int(match[1] or 1)] = path
    return found[max(found)] if found else None


def next_folder(wanted: Path) -> Path:
    """The next free number of this name."""
    latest = latest_folder(wanted)
    number = 1
    if latest is not None and latest.name != wanted.name:
        number = int(latest.name.rsplit("-", 1)[1])
    return wanted.with_name(f"{wanted.name}-{number + 1}")


def changes_of(
    folder: Path, recipe: Mapping[str, Any], *, may_change: Collection[str] = MAY_CHANGE
) -> list[str] | None:
    """Where the run in `folder` differs from `recipe` in what may not change; None if it is no run folder."""
    try:
        before = json.loads((folder / "recipe.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    old, new = _flat(before), _flat(recipe)
    return [
        f"{key}: {old.get(key)!r} then, {new.get(key)!r} now"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key) and not _is_among(key, may_change)
    ]


def _is_among(key: str, may_change: Collection[str]) -> bool:
    # The folder's own name may carry a number, and is how the run was found.
    return key == "output.folder" or any(key == free or key.startswith(f"{free}.") for free in may_change)


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else None
    if items is None:
        return {prefix: value}
    flat: dict[str, Any] = {}
    for key, inner in items:
        flat |= _flat(inner, f"{prefix}.{key}" if prefix else str(key))
    return flat


def _why_not(folder: Path, changes: list[str] | None) -> str:
    if changes is None:
        return "this is not an ftk run folder, so there is nothing to resume"
    if changes:
        return "this run cannot be resumed, for its recipe was another:\n  " + "\n  ".join(changes)
    return "this run is finished. Leave --resume out to start the next one"


def _check_writable(wanted: Path) -> None:
    parent = wanted
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir() and parent != wanted:
        raise RecipeError(f"{parent} is a file, so {wanted} cannot be made in it", place="output.folder")
    folder = parent if parent.is_dir() else parent.parent
    try:
        try_to_write(folder / wanted.name)
    except OSError as error:
        raise _not_writable(wanted, error) from error


def _not_writable(path: Path, error: OSError) -> RecipeError:
    return RecipeError(
        f"{path} cannot be written: {error.strerror}. Name another folder, such as output.folder=runs/mine",
        place="output.folder",
    )
