"""The end of a run: one object for machines, a page for people, and the sentences in between."""

import json
from collections.abc import Mapping
from typing import Any

from ftk.core.atomic import atomic_write
from ftk.core.json_values import finite
from ftk.runs.bias import bias_sentence
from ftk.runs.falling_chosen import falling_chosen, logged_steps
from ftk.runs.figures import Figures
from ftk.runs.folder import RunFolder
from ftk.runs.summary import comparison
from ftk.runs.without_context import context_sentence
from ftk.train.loop import FitResult


def result_object(folder: RunFolder, result: FitResult, before: Figures, after: Figures) -> dict[str, Any]:
    """What `ftk train --json` prints and `report.json` keeps."""
    return {
        "run_folder": str(folder.path),
        "model_folder": str(folder.model),
        "steps": result.steps,
        "seconds": result.seconds,
        "tokens": result.tokens,
        "tokens_per_second": result.tokens_per_second,
        "peak_memory_bytes": result.peak_memory_bytes,
        "final_loss": result.final_loss,
        "evaluation": {"before": dict(before.metrics), "after": dict(after.metrics)},
        "overfitting": result.verdict.overfitting,
        "best_step": result.best_step,
        "num_skipped": result.num_skipped,
        "stopped_early": result.stopped_early,
    }


def sentences(folder: RunFolder, result: FitResult, before: Figures, after: Figures, *found: str | None) -> list[str]:
    """What the run says in words; `found` is what else came to light."""
    told = list(result.verdict.sentences)
    if result.best_step is not None and result.best_step != result.steps:
        told.append(
            f"{folder.model} is the model of the last step, {result.steps}; the best held-out loss was at step "
            f"{result.best_step}, and {folder.checkpoints / 'best'} holds that model"
        )
    if result.num_skipped:
        reasons = ", ".join(f"{count} for {reason}" for reason, count in result.num_skipped.items())
        told.append(f"steps without an update: {reasons}")
    if result.stopped_early:
        told.append(f"stopped early after step {result.steps}: the held-out loss no longer falls")
    falling = falling_chosen(before.metrics, after.metrics, logged_steps(folder.path / "metrics.jsonl"))
    said = (context_sentence(after.metrics), bias_sentence(before.metrics, after.metrics), falling, *found)
    return told + [sentence for sentence in said if sentence]


def write_report(folder: RunFolder, answer: Mapping[str, Any], told: list[str]) -> None:
    """`report.md`, then `report.json`, with which the run counts as finished."""
    before, after = answer["evaluation"]["before"], answer["evaluation"]["after"]
    rows = comparison(before, after)
    table = [f"| {' | '.join(row)} |" for row in rows]
    table.insert(1, "|" + " --- |" * len(rows[0]))
    loss = answer["final_loss"]
    page = [
        f"# {folder.path.name}",
        "",
        *(table if after else ["Not evaluated: the recipe has no `data.eval`."]),
        "",
        f"{answer['steps']} steps, {answer['tokens']:,} tokens in {answer['seconds']:.1f} s of training "
        f"({answer['tokens_per_second']:,.0f} tokens a second), peak memory {answer['peak_memory_bytes'] / 1e9:.2f} GB"
        + (f", last loss {loss:.4f}." if loss is not None else "."),
        "",
        *(f"- {sentence}" for sentence in told),
        "",
    ]
    atomic_write(folder.path / "report.md", "\n".join(page))
    atomic_write(folder.path / "report.json", json.dumps(finite(answer), indent=2, allow_nan=False) + "\n")
