"""What merging keeps: three small tasks, tuned apart, in a row and together, then merged. Writes merge_tasks.md.

    python benchmarks/merge_tasks.py --folder runs/merge_tasks

The model is ftk://tiny, primed with a few rows of all tasks; these are ftk://orders (800 of its rows), ftk://contacts
and ftk://events: sentences that become JSON of different fields. Every step is a command, `ftk train`, `ftk merge` or
`ftk eval`. Finished steps are kept in the folder and are not repeated: the same command goes on where it was stopped. A
step is done anew when what it was told, or a step before it, is another than then; not when ftk itself is.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from merge_tasks_page import cells, page
from merge_tasks_plan import NUM_EVAL, TASKS, Model, plan

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Make all models, measure them, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", default="runs/merge_tasks", help="where finished steps are kept")
    parser.add_argument("--page", default=str(Path(__file__).with_suffix(".md")), help="the page that is written")
    parser.add_argument("--apart", action="store_true", help="merge models without the common start too")
    arguments = parser.parse_args()
    folder = Path(arguments.folder).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    sections = plan(folder, apart=arguments.apart)
    results: dict[str, dict[str, Any]] = {}
    for models in sections.values():
        for model in models:
            make(model, folder)
            results[model.name] = measured(model, folder)
            print(f"{model.name:<28} {'  '.join(cells(results[model.name]))}", flush=True)
    Path(arguments.page).write_text(page(sections, results, folder), encoding="utf-8")


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


if __name__ == "__main__":
    main()
