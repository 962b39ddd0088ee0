"""What merging keeps: three small tasks, tuned apart, in a row and together, then merged. Writes merge_tasks.md.

    python benchmarks/merge_tasks.py --folder runs/merge_tasks

The model is ftk://tiny; the tasks are ftk://orders (800 of its rows), ftk://contacts and ftk://events: sentences that
become JSON of different fields. Every step is a command, `ftk train`, `ftk merge` or `ftk eval`. Finished steps are
kept in the folder and are not repeated: the same command goes on where it was stopped. A step is done anew when what it
was told, or a step before it, is another than then; not when ftk itself is.
"""

import argparse
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
TASKS = ("orders", "contacts", "events")
NUM_TRAIN, NUM_EVAL = 800, 100
"""Rows of each task."""
TINY = "ftk://tiny"
BATCH_SIZE, EPOCHS, HEALING_STEPS = 16, 2, 40
ARITHMETIC = {2: (0.5, 0.7), 3: (0.35, 0.5)}
"""Weights of each model, by the number of models."""
DENSITIES = (0.2, 1.0)
RECIPE = """\
model: {model}
task: {{name: sft, prompt_loss_weight: 0.1}}
data: {{train: [{sources}], max_length: 256}}
tuning: full
training:
  {length}
  batch_size: {batch_size}
  learning_rate: 6.0e-4
  optimizer: {{name: adamw, betas: [0.9, 0.95]}}
  weight_decay: 0.1
  schedule: {{name: cosine, warmup_ratio: 0.05}}
evaluation: {{every: null, before: false}}
output: {output}
seed: 0
"""
"""As recipes/quickstart.yaml, but for the length."""


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


def main() -> None:
    """Make all models, measure them, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", default="runs/merge_tasks", help="where finished steps are kept")
    parser.add_argument("--page", default=str(Path(__file__).with_suffix(".md")), help="the page that is written")
    arguments = parser.parse_args()
    folder = Path(arguments.folder).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    sections = plan(folder)
    results: dict[str, dict[str, Any]] = {}
    for models in sections.values():
        for model in models:
            make(model, folder)
            results[model.name] = measured(model, folder)
            print(f"{model.name:<28} {'  '.join(cells(results[model.name]))}", flush=True)
    Path(arguments.page).write_text(page(sections, results, folder), encoding="utf-8")


def plan(folder: Path) -> dict[str, list[Model]]:
    """All models by the section of the page in which they stand, each after those that it is made of."""
    base = Model("base", "the base, ftk://tiny", "", TINY)
    alone = {task: tuned(folder, task, f"tuned on {task}", base, [task]) for task in TASKS}
    second = tuned(folder, "orders_contacts", "orders, then contacts", alone["orders"], ["contacts"])
    third = tuned(folder, "orders_contacts_events", "orders, then contacts, then events", second, ["events"])
    joint = tuned(folder, "joint", "all three together", base, list(TASKS))
    two, three = [alone["orders"], alone["contacts"]], list(alone.values())
    upscaled = merged(folder, "upscaled", "tuned on orders, then 4 layers made 6", "depth_upscale", [alone["orders"]])
    healed = tuned(
        folder, "healed", f"the same after {HEALING_STEPS} steps on orders", upscaled, ["orders"], healing=True
    )
    return {
        "Tuned": [base, *three, second, third, joint],
        "Orders and contacts merged": mixed(folder, "two", base, two),
        "All three merged": mixed(folder, "three", base, three),
        "A task subtracted": [subtracted(folder, base, joint, alone["orders"], share) for share in (0.25, 0.5, 0.75)],
        "Stacked": [upscaled, healed],
    }


def tuned(folder: Path, name: str, title: str, start: Model, tasks: list[str], *, healing: bool = False) -> Model:
    """A model that is trained."""
    sources = ", ".join(f'{{source: ftk://{task}/train, split: "train[:{NUM_TRAIN}]"}}' for task in tasks)
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


def make(model: Model, folder: Path) -> None:
    """Train or merge, unless that was done."""
    if not model.command:
        return
    out, file = Path(model.path(folder)), folder / f"{model.name}.yaml"
    done = folder / f"{model.name}.digest"
    if done.exists() and done.read_text() == model.digest and out.exists():
        return
    stopped = folder / f"{model.name}.begun"
    if model.command == "merge" or not (stopped.exists() and stopped.read_text() == model.digest):
        # A training that was stopped goes on; anything else in its place is of other settings.
        shutil.rmtree(out, ignore_errors=True)
    (folder / f"{model.name}.json").unlink(missing_ok=True)
    stopped.write_text(model.digest)
    file.write_text(model.text)
    words = ["train", str(file)] if model.command == "train" else ["merge", str(file), "--out", str(out)]
    answer = ftk(*words, log=folder / f"{model.name}.log")
    print(f"{model.name}: {model.command} took {answer['seconds']:.0f} s", flush=True)
    done.write_text(model.digest)
    stopped.unlink()


def measured(model: Model, folder: Path) -> dict[str, Any]:
    """What the model answers to the held-out rows of all tasks."""
    file, answers = folder / f"{model.name}.json", folder / f"{model.name}.answers.jsonl"
    rows = held_out(folder)
    if file.exists():
        found: dict[str, Any] = json.loads(file.read_text())
        if found["digest"] == model.digest:
            return found
    words = ["--data", str(rows), "--by", "task", "--metrics", "exact_match,json_fields", "--max-new-tokens", "96"]
    answer = ftk("eval", model.path(folder), *words, "--output", str(answers), log=folder / f"{model.name}.eval.log")
    found = {"digest": model.digest, **answer}
    file.write_text(json.dumps(found, indent=2) + "\n")
    return found


def held_out(folder: Path) -> Path:
    """One file with the held-out rows of all tasks, each with its task."""
    file = folder / "eval.jsonl"
    lines = []
    for task in TASKS:
        text = (ROOT / "ftk" / "data" / task / "eval.jsonl").read_text(encoding="utf-8")
        for line in text.splitlines()[:NUM_EVAL]:
            row = json.loads(line)
            lines.append(json.dumps({"prompt": row["prompt"], "completion": row["completion"], "task": task}))
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def ftk(*words: str, log: Path) -> dict[str, Any]:
    """`ftk ... --json` of this checkout: what it answers."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "ftk", *words, "--json"]
    # To a file and not to a pipe: stopped together with this script, a training still says that it saves a checkpoint.
    with log.open("w") as errors:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{log.read_text()[-3000:]}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def metric(result: dict[str, Any], task: str, name: str = "exact_match") -> float:
    """One figure of one task."""
    return float(result["metrics"][f"{name}[task={task}]"])


def cells(result: dict[str, Any]) -> list[str]:
    """Exact matches and right fields of each task."""
    return [f"{metric(result, task):.1%} ({metric(result, task, 'json_fields'):.0%})" for task in TASKS]


def votes(folder: Path, models: list[Model]) -> dict[str, float]:
    """Share of right answers by task where the models vote; on a tie the first to have given an answer is heard."""
    given = [[json.loads(line) for line in (folder / f"{one.name}.answers.jsonl").open()] for one in models]
    right: Counter[str] = Counter()
    for number, rows in enumerate(zip(*given, strict=True)):
        heard = Counter(row["answer"].strip() for row in rows).most_common(1)[0][0]
        right[TASKS[number // NUM_EVAL]] += heard == rows[0]["reference"].strip()
    return {task: right[task] / NUM_EVAL for task in TASKS}


def page(sections: dict[str, list[Model]], results: dict[str, dict[str, Any]], folder: Path) -> str:
    """The page as Markdown."""
    lines = [
        "# What merging keeps",
        "",
        f"Written by `merge_tasks.py` on {time.strftime('%Y-%m-%d')}, {os.cpu_count()} {platform.machine()} CPU cores. "
        f"ftk://tiny, three tasks of {NUM_TRAIN} rows, {EPOCHS} epochs of each, every weight tuned; the rest as in "
        "recipes/quickstart.yaml, one seed.",
        f"Figures are exact matches of {NUM_EVAL} held-out rows a task, about a third of them with words that no "
        "training row has; in brackets the share of right fields. One row is a point.",
    ]
    header = [f"| model | {' | '.join(TASKS)} |", "| --- |" + " --- |" * len(TASKS)]
    for title, models in sections.items():
        lines += ["", f"## {title}", "", *header]
        lines += [f"| {one.title} | {' | '.join(cells(results[one.name]))} |" for one in models]
    return "\n".join([*lines, *ensembles(sections, results, folder), *findings(sections, results), ""])


def ensembles(sections: dict[str, list[Model]], results: dict[str, dict[str, Any]], folder: Path) -> list[str]:
    """Majorities, with what they cost a request."""
    groups = {
        "majority of the models tuned on one task": sections["Tuned"][1:4],
        "majority of all models that are merged of three": sections["All three merged"],
    }
    single = results["joint"]["seconds"]
    lines = [
        "",
        "## Ensembles beside them",
        "",
        "The answer that most models give; on a tie the one that comes first in the tables above. A merged model costs "
        "a request what one model does.",
        "",
        f"| ensemble | {' | '.join(TASKS)} | models a request | time of the joint model |",
        "| --- |" + " --- |" * (len(TASKS) + 2),
    ]
    for title, models in groups.items():
        found = votes(folder, models)
        cost = sum(results[one.name]["seconds"] for one in models) / single
        shares = " | ".join(f"{found[task]:.1%}" for task in TASKS)
        lines.append(f"| {title} | {shares} | {len(models)} | {cost:.1f} |")
    return lines


def findings(sections: dict[str, list[Model]], results: dict[str, dict[str, Any]]) -> list[str]:
    """What the tables say, in sentences made from their figures."""
    alone = {task: metric(results[task], task) for task in TASKS}

    def of(name: str, task: str) -> str:
        return f"{metric(results[name], task):.1%}"

    def kept(name: str, tasks: tuple[str, ...]) -> float:
        return min(metric(results[name], task) / alone[task] if alone[task] else 0.0 for task in tasks)

    lines = ["", "## What is to be seen", ""]
    lines.append(
        f"- Tuned in a row, orders fall from {alone['orders']:.1%} to {of('orders_contacts', 'orders')} after contacts "
        f"and {of('orders_contacts_events', 'orders')} after events. Trained together they stay at "
        f"{of('joint', 'orders')}, contacts at {of('joint', 'contacts')} and events at {of('joint', 'events')}."
    )
    for title, tasks in (("Orders and contacts merged", TASKS[:2]), ("All three merged", TASKS)):
        for kind in ("arithmetic", "ties", "slerp"):
            candidates = [one for one in sections[title] if kind in one.name]
            best = max(candidates, key=lambda one: kept(one.name, tasks))
            lines.append(
                f"- {title}, {best.title}: of each task at least {kept(best.name, tasks):.0%} of what its own model "
                f"reaches ({', '.join(f'{task} {of(best.name, task)}' for task in tasks)})"
                f"{', the best of those tried' if len(candidates) > 1 else ''}."
            )
    last = sections["A task subtracted"]
    lines += [
        f"- {one.title.capitalize()}: orders {of(one.name, 'orders')}, contacts {of(one.name, 'contacts')}, events "
        f"{of(one.name, 'events')}."
        for one in last
    ]
    lines.append(
        f"- Stacked to 6 layers the model tuned on orders goes from {alone['orders']:.1%} to "
        f"{of('upscaled', 'orders')}; {HEALING_STEPS} steps of training bring it to {of('healed', 'orders')}."
    )
    return lines


if __name__ == "__main__":
    main()
