"""Every stage's model, and the one before all of them, on every stage's held-out rows: what was gained and lost."""

import gc
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftk.core.atomic import atomic_write
from ftk.core.errors import FtkError
from ftk.core.json_values import finite
from ftk.core.tell import tell
from ftk.models.settings import ModelSettings
from ftk.quantization import Quantization
from ftk.runs.evaluate import losses_of
from ftk.runs.out_of_memory import USE_REMEDIES, out_of_memory_told
from ftk.runs.ready_model import load_ready_model
from ftk.runs.stage_done import Done
from ftk.runs.stage_rows import rows_digest
from ftk.runs.stage_state import made
from ftk.runs.summary import figure, print_comparison

BASE = "base"
"""What the table calls the model that the first stage starts from."""
FILE, PAGE = "comparison.json", "comparison.md"
SHOWN = ("loss", "bits_per_byte", "left_to_right_loss", "token_accuracy")
"""Figures of the table; the file has all."""


@dataclass(frozen=True)
class Compared:
    """The figures of a chain's models."""

    models: tuple[str, ...]
    """`base` and the ids of the stages, in order."""
    figures: Mapping[str, Mapping[str, Mapping[str, float]]]
    """By the stage whose held-out rows they are of, and the model; none where the rows are not for the model."""
    sentences: tuple[str, ...]

    def as_json(self) -> list[dict[str, Any]]:
        return [
            {"evaluated_on": rows, "model": model, "metrics": dict(metrics)}
            for rows, by_model in self.figures.items()
            for model, metrics in by_model.items()
        ]

    def table(self) -> list[tuple[str, ...]]:
        """A heading, then a row for each figure of each stage's held-out rows."""
        table = [("held-out rows of", *self.models)]
        for rows, by_model in self.figures.items():
            for name in SHOWN:
                if any(name in metrics for metrics in by_model.values()):
                    cells = (figure(name, by_model.get(model, {}).get(name)) for model in self.models)
                    table.append((f"{rows}: {name}", *cells))
        return table


def compare_stages(folder: Path, done: Sequence[Done]) -> Compared | None:
    """Measure every model on every stage's held-out rows, and write the table into the chain's folder.

    Where nothing has changed since, the table is read from there. None where no stage has held-out rows.

    Raises:
        ModelError: a model cannot be loaded.
    """
    measured = [one for one in done if one.recipe.recipe.data.eval]
    if not measured:
        return None
    key = _key(done)
    figures = _read(folder / FILE, key)
    if figures is None:
        tell(f"comparing {len(done) + 1} models on the held-out rows of {len(measured)} stages")
        figures = _measured(done, measured)
    compared = Compared((BASE, *(one.stage.id for one in done)), figures, tuple(_forgotten(done, figures)))
    _write(folder, compared, key)
    return compared


@out_of_memory_told(USE_REMEDIES)
def _measured(done: Sequence[Done], measured: Sequence[Done]) -> dict[str, dict[str, dict[str, float]]]:
    figures: dict[str, dict[str, dict[str, float]]] = {one.stage.id: {} for one in measured}
    first = done[0].recipe.recipe
    base = _as_it_is(first.model, id=first.model.id, revision=first.model.revision)
    models: list[tuple[str, ModelSettings, Quantization | None]] = [(BASE, base, first.quantization)]
    for one in done:
        own = one.recipe.recipe
        models.append((one.stage.id, _as_it_is(own.model, id=str(one.folder)), own.quantization))
    for name, settings, quantization in models:
        model = load_ready_model(settings, quantization=quantization)
        for one in measured:
            recipe = one.recipe.recipe.model_copy(update={"model": settings})
            try:
                figures[one.stage.id][name] = dict(losses_of(recipe, model, tell=_unheard))
            except FtkError as error:
                tell(f"{name} is not measured on the held-out rows of {one.stage.id}: {error.message}")
        del model
        gc.collect()
    return figures


def _as_it_is(settings: ModelSettings, *, id: str, revision: str | None = None) -> ModelSettings:
    """A model as its folder has it: a stage that changes how far it reads has left that in its configuration."""
    kept = settings.model_dump(include={"dtype", "attention", "trust_remote_code"})
    return ModelSettings(id=id, revision=revision, **kept)


def print_compared(compared: Compared) -> None:
    """Print the table, and what was forgotten, to standard output."""
    print_comparison(compared.table())
    for sentence in compared.sentences:
        print(sentence)


def _unheard(sentence: str) -> None:
    """What is read and cut was told by each stage itself."""


def _forgotten(done: Sequence[Done], figures: Mapping[str, Mapping[str, Mapping[str, float]]]) -> list[str]:
    """Stages whose held-out rows the last model knows less well than theirs did, by more than is put up with."""
    last = done[-1].stage.id
    told = []
    for one in done[:-1]:
        by_model = figures.get(one.stage.id, {})
        losses = {model: metrics["loss"] for model, metrics in by_model.items() if "loss" in metrics}
        if not {one.stage.id, last} <= set(losses):
            continue
        rise = losses[last] - losses[one.stage.id]
        if math.isfinite(rise) and rise > one.recipe.recipe.evaluation.max_forgetting:
            told.append(
                f"{last} has forgotten of {one.stage.id}: the loss on its held-out rows was {losses[one.stage.id]:.4g} "
                f"after {one.stage.id}, and is {losses[last]:.4g} now. A mixture with rows of {one.stage.id}, a lower "
                "learning rate or tuning: lora forgets less"
            )
    return told


def _key(done: Sequence[Done]) -> str:
    """What the figures depend on: the models, and the rows that they are measured on."""
    parts = []
    for one in done:
        recipe = one.recipe.resolved()
        rows = [recipe[section] for section in ("model", "task", "data", "seed")]
        held_out = rows_digest(one.recipe.recipe, one.recipe.recipe.data.eval, role="data.eval")
        parts.append([one.stage.id, str(one.folder), made(one.folder), rows, held_out])
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _read(file: Path, key: str) -> dict[str, dict[str, dict[str, float]]] | None:
    try:
        kept = json.loads(file.read_text(encoding="utf-8"))
        if kept["key"] != key:
            return None
        figures: dict[str, dict[str, dict[str, float]]] = {}
        for one in kept["comparison"]:
            metrics = {name: math.nan if value is None else value for name, value in one["metrics"].items()}
            figures.setdefault(one["evaluated_on"], {})[one["model"]] = metrics
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return figures


def _write(folder: Path, compared: Compared, key: str) -> None:
    table = compared.table()
    lines = [f"| {' | '.join(row)} |" for row in table]
    lines.insert(1, "|" + " --- |" * len(table[0]))
    page = [f"# {folder.name}", "", *lines, "", *(f"- {sentence}" for sentence in compared.sentences)]
    atomic_write(folder / PAGE, "\n".join(page).rstrip("\n") + "\n")
    content = {"key": key, "comparison": compared.as_json()}
    atomic_write(folder / FILE, json.dumps(finite(content), indent=2, allow_nan=False) + "\n")
