"""`ftk eval`."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from ftk.cli.flags import columns_by_role
from ftk.core.tell import tell

if TYPE_CHECKING:
    from ftk.runs.evaluation import Evaluation


def command(
    model: Annotated[str, typer.Argument(help="Hub id, model folder, adapter folder or run folder.")],
    data: Annotated[
        str | None, typer.Option("--data", help="Held-out rows: file, folder, hub id or ftk://. A run brings its own.")
    ] = None,
    *,
    metrics: Annotated[
        str | None,
        typer.Option("--metrics", help="Such as exact_match,f1 or my_module:my_metric, or a YAML list of mappings."),
    ] = None,
    shots: Annotated[str, typer.Option("--shots", help="Examples shown in the prompt, such as 0,5.")] = "0",
    train_data: Annotated[
        str | None, typer.Option("--train-data", help="Rows from which examples are taken. A run brings its own.")
    ] = None,
    by: Annotated[str | None, typer.Option("--by", help="A column; metrics also for each of its values.")] = None,
    max_new_tokens: Annotated[int | None, typer.Option("--max-new-tokens", help="Longest answer in tokens.")] = None,
    max_rows: Annotated[int | None, typer.Option("--max-rows", help="Rows on which answers are generated.")] = None,
    format: Annotated[str | None, typer.Option("--format", help="Format of the rows; found by default.")] = None,
    columns: Annotated[
        str | None, typer.Option("--columns", help="Column by role, such as question=problem,answer=solution.")
    ] = None,
    subset: Annotated[str | None, typer.Option("--subset", help="Configuration of a hub data set.")] = None,
    split: Annotated[
        str | None, typer.Option("--split", help="Split of the held-out rows, such as test[:10%].")
    ] = None,
    chat_template: Annotated[
        str | None, typer.Option("--chat-template", help="A shipped template or a Jinja file instead of the model's.")
    ] = None,
    revision: Annotated[str | None, typer.Option("--revision", help="Branch, tag or commit of a hub id.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Which examples are shown.")] = None,
    bias: Annotated[
        str | None, typer.Option("--bias", help="Rows with group and attribute, by which bias is measured.")
    ] = None,
    by_position: Annotated[
        bool | None, typer.Option("--by-position/--no-by-position", help="Perplexity by the position in a text.")
    ] = None,
    passkey: Annotated[
        str | None, typer.Option("--passkey", help="Whether pass keys are found in texts of so many tokens: 1024,4096.")
    ] = None,
    output: Annotated[str | None, typer.Option("--output", help="Where each row's answer is written (JSONL).")] = None,
) -> Mapping[str, object]:
    """Measure a model, an adapter or a run on held-out rows.

    Loss, perplexity and token accuracy are over the rows' answers; metrics are of answers that the model generates.
    """
    from ftk.runs.eval_request import EvalRequest
    from ftk.runs.evaluate import evaluate

    request = EvalRequest(
        model=model,
        data=data,
        format=format,
        columns=columns_by_role(columns),
        subset=subset,
        split=split,
        metrics=metrics,
        shots=shots,
        train_data=train_data,
        by=by,
        max_new_tokens=max_new_tokens,
        max_rows=max_rows,
        chat_template=chat_template,
        revision=revision,
        seed=seed,
        output=output,
        bias=bias,
        by_position=by_position,
        passkey=passkey,
    )
    evaluation = evaluate(request, tell=tell)
    _show(evaluation)
    return evaluation.as_json()


def _show(evaluation: "Evaluation") -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from ftk.evaluation.heatmap import cells_of, print_heatmap

    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("metric")
    for one in evaluation.answered or (None,):
        table.add_column("value" if one is None else f"{one.num_shots} examples shown", justify="right")
    num_columns = max(1, len(evaluation.answered))
    for name, value in evaluation.losses.items():
        if cells_of({name: value}):
            continue  # in the heatmap
        table.add_row(name, *[f"{value:.4f}", *[""] * (num_columns - 1)])
    for name in dict.fromkeys(name for one in evaluation.answered for name in one.metrics):
        table.add_row(name, *[f"{one.metrics[name]:.4f}" for one in evaluation.answered])
    Console(soft_wrap=True, highlight=False, markup=False).print(table)
    if cells := cells_of(evaluation.losses):
        print_heatmap("pass keys found, by depth and length", cells)
    answers = f"; answers in {evaluation.answers_file}" if evaluation.answers_file else ""
    print(f"{evaluation.num_examples:,} rows in {evaluation.seconds:.1f} s{answers}")
