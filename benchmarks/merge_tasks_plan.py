"""The models of `merge_tasks.py`: which are tuned, merged, subtracted and stacked, and of which others."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

TASKS = ("orders", "contacts", "events")
NUM_TRAIN, NUM_EVAL = 800, 100
"""Rows of each task."""
NUM_PRIMER = 150
"""Rows of each task from which the common start has learned that sentences become JSON."""
TINY = "ftk://tiny"
BATCH_SIZE, EPOCHS, HEALING_STEPS = 16, 2, 40
ARITHMETIC = {2: (0.5, 0.7), 3: (0.35, 0.5)}
"""Weights of each model, by the number of models."""
DENSITIES = (0.2, 0.5)
RECIPE = """\
model: {model}
task: {{name: sft, prompt_loss_weight: 0.1}}
data: {{train: [{sources}], max_length: 256}}
tuning: full
training:
  {length}
  batch_size: {batch_size}
  learning_rate: 3.0e-4
  optimizer: {{name: adamw, betas: [0.9, 0.95]}}
  weight_decay: 0.1
  schedule: {{name: cosine, warmup_ratio: 0.05}}
evaluation: {{every: null, before: false}}
output: {output}
seed: 0
"""
"""As recipes/quickstart.yaml, but for the length and half its learning rate: models that stay near each other merge."""


@dataclass(frozen=True)
class Model:
    """A model that is made by one command, and then measured."""

    name: str
    title: str
    command: str
    """`train` or `merge`; empty for one that ships with ftk."""
    text: str
    """The recipe, or the file of the merge."""
    of: tuple["Model", ...] = ()
    """Models that it is made of."""

    def path(self, folder: Path) -> str:
        """As commands call it."""
        return str(folder / self.name) if self.command else self.text

    @property
    def digest(self) -> str:
        """Of all that it depends on."""
        parts = [self.command, self.text, *(one.digest for one in self.of)]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()


START = "primer"
APART = "Orders and contacts merged, without the common start"


def plan(folder: Path, *, apart: bool) -> dict[str, list[Model]]:
    """All models by the section of the page in which they stand, each after those that it is made of.

    Args:
        folder: where they are kept.
        apart: whether models that share no more than ftk://tiny are merged too.
    """
    tiny = Model("tiny", "ftk://tiny", "", TINY)
    base = tuned(folder, START, f"the common start: {NUM_PRIMER} rows of each", tiny, list(TASKS), num_rows=NUM_PRIMER)
    alone = {task: tuned(folder, task, f"tuned on {task}", base, [task]) for task in TASKS}
    second = tuned(folder, "orders_contacts", "orders, then contacts", alone["orders"], ["contacts"])
    third = tuned(folder, "orders_contacts_events", "orders, then contacts, then events", second, ["events"])
    joint = tuned(folder, "joint", "all three together", base, list(TASKS))
    two, three = [alone["orders"], alone["contacts"]], list(alone.values())
    upscaled = merged(folder, "upscaled", "tuned on orders, then 4 layers made 6", "depth_upscale", [alone["orders"]])
    healed = tuned(
        folder, "healed", f"the same after {HEALING_STEPS} steps on orders", upscaled, ["orders"], healing=True
    )
    strangers = [tuned(folder, f"tiny_{task}", f"{task} from ftk://tiny", tiny, [task]) for task in TASKS[:2]]
    sections = {
        "Tuned": [base, *three, second, third, joint],
        "Orders and contacts merged": mixed(folder, "two", base, two),
        "All three merged": mixed(folder, "three", base, three),
        "A task subtracted": [subtracted(folder, base, joint, alone["orders"], share) for share in (0.25, 0.5, 0.75)],
        "Stacked": [upscaled, healed],
    }
    return sections | ({APART: [tiny, *strangers, *mixed(folder, "tiny_two", tiny, strangers)]} if apart else {})


def tuned(
    folder: Path,
    name: str,
    title: str,
    start: Model,
    tasks: list[str],
    *,
    num_rows: int = NUM_TRAIN,
    healing: bool = False,
) -> Model:
    """A model that is trained."""
    sources = ", ".join(f'{{source: ftk://{task}/train, split: "train[:{num_rows}]"}}' for task in tasks)
    text = RECIPE.format(
        model=start.path(folder),
        sources=sources,
        length=f"max_steps: {HEALING_STEPS}" if healing else f"epochs: {EPOCHS}",
        batch_size=BATCH_SIZE,
        output=folder / name,
    )
    return Model(name, title, "train", text, (start,))


def merged(
    folder: Path,
    name: str,
    title: str,
    method: str,
    models: list[Model],
    *,
    base: Model | None = None,
    weights: list[float] | None = None,
    more: str = "",
    density: float | None = None,
) -> Model:
    """A model that is merged."""
    lines = [f"merge_method: {method}", *([f"base_model: {base.path(folder)}"] if base else []), "models:"]
    for number, model in enumerate(models):
        own = {"weight": weights[number]} if weights else {}
        own |= {"density": density} if density is not None else {}
        lines.append(f"  - {json.dumps({'model': model.path(folder)} | ({'parameters': own} if own else {}))}")
    return Model(name, title, "merge", "\n".join([*lines, more]) + "\n", (*models, *([base] if base else [])))


def mixed(folder: Path, prefix: str, base: Model, models: list[Model]) -> list[Model]:
    """Models merged by each method."""
    count = len(models)
    found = []
    for share in ARITHMETIC[count]:
        title, name = f"task arithmetic, {share:g} of each", f"{prefix}_arithmetic_{share:g}"
        found.append(merged(folder, name, title, "task_arithmetic", models, base=base, weights=[share] * count))
    for density in DENSITIES:
        title, name = f"TIES, density {density:g}", f"{prefix}_ties_{density:g}"
        found.append(merged(folder, name, title, "ties", models, base=base, weights=[1.0] * count, density=density))
    title = "SLERP, half way" if count == 2 else "SLERP, one after the other with equal weights"
    return [*found, merged(folder, f"{prefix}_slerp", title, "slerp", models, weights=[1.0] * count)]


def subtracted(folder: Path, base: Model, whole: Model, task: Model, share: float) -> Model:
    """A model less a share of what another learned."""
    title = f"all three together, less {share:g} of orders"
    name = f"joint_less_{share:g}"
    return merged(folder, name, title, "task_arithmetic", [whole, task], base=base, weights=[1.0, -share])
