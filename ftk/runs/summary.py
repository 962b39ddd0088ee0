"""What came of a run, for a person: figures before and after side by side, and an answer before and after."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

PERCENT = re.compile(
    r"(exact_match|exact_match_squad|infilling_\w+|edit_similarity|f1|rouge_l|json_\w+|token_accuracy"
    r"|preference_accuracy|bias_answers_differ|passkey(_\d+)?)\b"
)


@dataclass(frozen=True)
class SampleAnswer:
    """One held-out question with its answers."""

    question: str
    reference: str
    before: str | None
    after: str


def comparison(before: Mapping[str, float], after: Mapping[str, float]) -> list[tuple[str, ...]]:
    """Rows of a table: a heading, then each metric before, before with examples in the prompt, and after.

    A metric named `exact_match@5` is `exact_match` with five examples in the prompt; `short_loss@unscaled` is that of
    the model before its positions were scaled, and has a column where there are such.
    """
    shots: list[int | str] = [*sorted({int(name.rsplit("@", 1)[1]) for name in before if re.search(r"@\d+$", name)})]
    columns = [f"before, {count} examples in the prompt" for count in shots]
    if any(name.endswith("@unscaled") for name in before):
        shots, columns = ["unscaled", *shots], ["before, positions unscaled", *columns]
    heading = ("metric", "before", *columns, "after")
    names = [name for name in after if not re.search(r"@(\d+|unscaled)$", name)]
    rows = [heading]
    for name in names:
        with_shots = (figure(name, before.get(f"{name}@{count}")) for count in shots)
        rows.append((name, figure(name, before.get(name)), *with_shots, figure(name, after[name])))
    return rows


def print_comparison(rows: Sequence[tuple[str, ...]]) -> None:
    """Print a table of metrics to standard output."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    heading, *body = rows
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for place, title in enumerate(heading):
        table.add_column(title, justify="left" if place == 0 else "right", overflow="fold")
    for row in body:
        # As text: `exact_match[unseen=true]` looks like markup to rich.
        table.add_row(*map(Text, row))
    Console(highlight=False).print(table)


def print_sample(sample: SampleAnswer) -> None:
    """Print one question with its answers to standard output."""
    print(f"A held-out row\n  question  {_one_line(sample.question)}")
    if sample.before is not None:
        print(f"  before    {_one_line(sample.before)}")
    print(f"  after     {_one_line(sample.after)}\n  reference {_one_line(sample.reference)}\n")


def figure(name: str, value: float | None) -> str:
    """A metric as a person reads it: shares in percent, others with four digits, nothing where it was not measured."""
    if value is None:
        return ""
    return f"{value:.1%}" if PERCENT.match(name) else f"{value:.4g}"


def _one_line(text: str, width: int = 160) -> str:
    line = " ".join(text.split())
    return line if len(line) <= width else f"{line[: width - 1]}…"
