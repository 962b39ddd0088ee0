"""The page of `merge_tasks.py`: tables, ensembles beside them, and what they say in sentences."""

import json
import os
import platform
import time
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

from merge_tasks_plan import APART, EPOCHS, HEALING_STEPS, NUM_EVAL, NUM_PRIMER, NUM_TRAIN, START, TASKS, Model
from transformers import AutoTokenizer


def processor() -> str:
    """How many cores of what."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{os.cpu_count()} cores of {names[0] if names else platform.machine()}"


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


def num_written(folder: Path, model: Model) -> int:
    """Tokens of a model's answers, the one that ends each among them: what they cost, however busy the machine is."""
    tokenizer: Any = AutoTokenizer.from_pretrained(folder / "joint" / "model")
    rows = [json.loads(line) for line in (folder / f"{model.name}.answers.jsonl").open()]
    return sum(
        len(tokenizer(row["answer"], add_special_tokens=False)["input_ids"]) + (not row["is_cut"]) for row in rows
    )


def page(sections: dict[str, list[Model]], results: dict[str, dict[str, Any]], folder: Path) -> str:
    """The page as Markdown."""
    lines = [
        "# What merging keeps",
        "",
        f"Written by `merge_tasks.py` on {time.strftime('%Y-%m-%d')}: {processor()}, Python "
        f"{platform.python_version()}, torch {version('torch')}, transformers {version('transformers')}, float32.",
        f"ftk://tiny, three tasks of {NUM_TRAIN} rows, {EPOCHS} epochs of each, every weight tuned; half the learning "
        "rate of recipes/quickstart.yaml and the rest as there, one seed.",
        f"All models{' but those of one section' if APART in sections else ''} begin with a common start that has seen "
        f"{NUM_PRIMER} rows of each task: it knows that sentences become JSON, and does none of the tasks well.",
        f"Figures are exact matches of {NUM_EVAL} held-out rows a task, about a third of them with words that no "
        "training row has; in brackets the share of right fields. One row is a point.",
    ]
    header = [f"| model | {' | '.join(TASKS)} |", "| --- |" + " --- |" * len(TASKS)]
    for title, models in sections.items():
        lines += ["", f"## {title}", "", *header]
        lines += [f"| {one.title} | {' | '.join(cells(results[one.name]))} |" for one in models]
    return "\n".join([*lines, *ensembles(sections, folder), *findings(sections, results), ""])


def ensembles(sections: dict[str, list[Model]], folder: Path) -> list[str]:
    """Majorities, with what they cost a request."""
    groups = {
        "majority of the models tuned on one task": sections["Tuned"][1:4],
        "majority of all models that are merged of three": sections["All three merged"],
    }
    single = num_written(folder, next(one for one in sections["Tuned"] if one.name == "joint"))
    lines = [
        "",
        "## Ensembles beside them",
        "",
        "The answer that most models give; on a tie the one that comes first in the tables above. A merged model costs "
        "a request what one model does; tokens are those that all models write, over those of the model tuned on all "
        "three.",
        "",
        f"| ensemble | {' | '.join(TASKS)} | models a request | tokens written |",
        "| --- |" + " --- |" * (len(TASKS) + 2),
    ]
    for title, models in groups.items():
        found = votes(folder, models)
        cost = sum(num_written(folder, one) for one in models) / single
        shares = " | ".join(f"{found[task]:.1%}" for task in TASKS)
        lines.append(f"| {title} | {shares} | {len(models)} | {cost:.1f} times |")
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
    lines.append(
        "- What merging keeps is to be held against the common start as well, which reaches "
        f"{', '.join(f'{task} {of(START, task)}' for task in TASKS)}."
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
    if APART in sections:
        best = max(sections[APART][3:], key=lambda one: min(metric(results[one.name], task) for task in TASKS[:2]))
        lines.append(
            f"- Without the common start {best.title} is the best: orders {of(best.name, 'orders')}, contacts "
            f"{of(best.name, 'contacts')}."
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
