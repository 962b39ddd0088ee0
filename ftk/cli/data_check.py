"""`ftk data check`."""

from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from ftk.cli.flags import OVERRIDES_HELP, columns_by_role
from ftk.core.tell import tell

if TYPE_CHECKING:
    from ftk.data.check.finding import Finding, Severity
    from ftk.runs.check_data import DataReport

ROWS_SHOWN = 10
"""Row numbers of a finding that a person sees; `--json` gives a hundred."""
DETAILS_SHOWN = 3


class FailOn(StrEnum):
    """Severities, from the lowest; an enumeration, by which typer knows the choices."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def check(
    target: Annotated[str, typer.Argument(help="A recipe (.yaml), or a data file, folder, hub id or ftk:// data.")],
    overrides: Annotated[list[str] | None, typer.Argument(help=OVERRIDES_HELP)] = None,
    *,
    eval: Annotated[str | None, typer.Option("--eval", help="Held-out rows; a recipe brings its own.")] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", help="Model whose tokenizer and template rows must fit; a recipe brings its own."),
    ] = None,
    format: Annotated[str | None, typer.Option("--format", help="Format of a data file; found by default.")] = None,
    columns: Annotated[
        str | None, typer.Option("--columns", help="Column by role, such as question=problem,answer=solution.")
    ] = None,
    benchmark: Annotated[
        list[str] | None, typer.Option("--benchmark", help="File of a benchmark that no row may stem from; repeatable.")
    ] = None,
    against: Annotated[
        str | None, typer.Option("--against", help="Sample of real use that training rows should be like.")
    ] = None,
    near: Annotated[
        bool, typer.Option("--near/--no-near", help="Look for near duplicates too, which takes longer.")
    ] = True,
    similarity: Annotated[
        float, typer.Option("--similarity", min=0.3, max=1.0, help="Shared runs of words that make near duplicates.")
    ] = 0.8,
    processes: Annotated[
        int | None, typer.Option("--processes", min=1, help="Processes that look at many rows; one a core by default.")
    ] = None,
    fail_on: Annotated[
        FailOn | None, typer.Option("--fail-on", help="Exit with 4 at a finding of that severity or a higher one.")
    ] = None,
) -> Mapping[str, object]:
    """Find what is wrong with rows: duplicates, leaks, empty sides, contradictions, what a template or a cut breaks.

    Findings are errors (training refuses the row, or what it measures is wrong), warnings, and notes.
    """
    from ftk.runs.check_data import check_data
    from ftk.runs.check_plan import CheckRequest

    request = CheckRequest(
        target=target,
        overrides=overrides or (),
        eval=eval,
        model=model,
        format=format,
        columns=columns_by_role(columns),
        benchmarks=benchmark or (),
        against=against,
        near=near,
        similarity=similarity,
        num_processes=processes,
    )
    report = check_data(request, tell=tell)
    _print(report)
    if fail_on is not None:
        report.fail_on(fail_on.value)
    return report.as_json()


def _print(report: "DataReport") -> None:
    names: dict[Severity, tuple[str, str]] = {
        "error": ("error", "errors"),
        "warning": ("warning", "warnings"),
        "info": ("note", "notes"),
    }
    for finding in report.findings:
        rows = "1 row" if finding.count == 1 else f"{finding.count:,} rows"
        print(f"{names[finding.severity][0]:<8}{finding.kind}  {finding.source} ({finding.part}): {rows}")
        print(f"        {finding.message}")
        for line in _rows(finding):
            print(f"        {line}")
    if report.findings:
        print()
    for part, spread in report.lengths.items():
        print(
            f"{part}: {report.num_rows[part]:,} rows of {spread.shortest:,} to {spread.longest:,} {spread.unit}, "
            f"median {spread.median:,}, nine in ten from {spread.percentile_5:,} to {spread.percentile_95:,}"
        )
    if not report.has_model:
        print("no model: whether rows fit a template and a length was not looked at (--model adds it)")
    counts = [(report.count(severity), names[severity]) for severity in names]
    told = ", ".join(f"{number} {one if number == 1 else many}" for number, (one, many) in counts)
    print(f"{told} in {report.seconds:.1f} s")


def _rows(finding: "Finding") -> list[str]:
    shown = ", ".join(f"{row:,}" for row in finding.rows[:ROWS_SHOWN])
    more = f" and {finding.count - ROWS_SHOWN:,} more" if finding.count > ROWS_SHOWN else ""
    particular = [f"  {row:,}: {detail}" for row, detail in zip(finding.rows, finding.details, strict=False) if detail]
    return [f"rows {shown}{more}", *particular[:DETAILS_SHOWN]]
