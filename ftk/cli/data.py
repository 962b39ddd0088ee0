"""`ftk data`: look at data as the model will see it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from ftk.cli.data_check import check
from ftk.cli.data_files import convert, fix, split
from ftk.cli.flags import OVERRIDES_HELP

if TYPE_CHECKING:
    from ftk.data.statistics import Statistics
    from ftk.runs.data import Preview

RecipePath = Annotated[str, typer.Argument(help="The recipe whose data is shown.")]
Overrides = Annotated[list[str] | None, typer.Argument(help=OVERRIDES_HELP)]


def preview(
    recipe: RecipePath,
    overrides: Overrides = None,
    *,
    rows: Annotated[int, typer.Option("--rows", min=1, help="How many rows are shown.")] = 3,
) -> Mapping[str, object]:
    """Show the first training rows, each token by its loss weight."""
    from ftk.runs.data import preview as run

    result = run(recipe, overrides or (), num_rows=rows)
    for source, format in result.formats.items():
        print(f"{source}: format {format}")
    _print_preview(result)
    return result.as_json()


def stats(recipe: RecipePath, overrides: Overrides = None) -> Mapping[str, object]:
    """Count lengths, truncation, tokens that teach, duplicates and overlap with the held-out rows."""
    from ftk.runs.data import stats as run

    result = run(recipe, overrides or ())
    for source in result.sources:
        print(source)
    _print_statistics("train", result.train, result.max_length, result.truncation)
    if result.eval is not None and result.overlap is not None:
        _print_statistics("eval", result.eval, result.max_length, result.truncation)
        print(
            f"\n{result.overlap.num_rows:,} of {result.eval.num_rows:,} held-out rows also stand in the training set, "
            f"{result.overlap.num_prompts:,} of their prompts"
        )
    return result.as_json()


commands = {
    "preview": preview,
    "stats": stats,
    "check": check,
    "fix": fix,
    "convert": convert,
    "split": split,
}


def _print_preview(result: "Preview") -> None:
    from rich.console import Console

    from ftk.data.show import LEGEND, coloured, parts, plain

    console = Console(soft_wrap=True, highlight=False)
    in_colour = console.is_terminal and not console.no_color
    if in_colour:
        console.print(
            "[bold green]learned answer, weight 1[/]  [yellow]prompt, at its weight[/]  [bright_black]weight 0[/]"
        )
    else:
        print(LEGEND)
    for row in result.rows:
        weights = ", ".join(f"{weight:g}" for weight in sorted({one.weight for one in row.stretches}))
        print(f"\n{row.place}: {row.num_tokens:,} tokens, {row.num_answer_tokens:,} of answers; weights {weights}")
        for name, part in parts(row.stretches):
            if name:
                print(f"── {name}")
            if in_colour:
                console.print(coloured(part))
            else:
                print(plain(part))
    if result.prompt_weight_share is not None:
        print(f"\n{result.prompt_weight_share:.1%} of the loss weight of these rows lies on prompts")


def _print_statistics(name: str, part: "Statistics", max_length: int, truncation: str) -> None:
    from ftk.data.statistics import bars

    share = f"; {part.prompt_weight_share:.1%} of the loss weight lies on prompts" if not part.completions else ""
    print(
        f"\n{name}: {part.num_rows:,} rows, {part.num_tokens:,} tokens, of which {part.answer_share:.1%} are answers"
        f"{share}"
    )
    print(f"tokens a row: {part.shortest:,} to {part.longest:,}, median {part.median:,}")
    for line in bars(part.histogram):
        print(f"  {line}")
    for one in part.completions:
        print(
            f"{one.num_completions:,} {one.name} completions: {one.shortest:,} to {one.longest:,} tokens, median "
            f"{one.median:,}"
        )
    if part.chosen_longer_share is not None:
        print(f"the chosen completion is the longer one in {part.chosen_longer_share:.1%} of the pairs")
    print(f"{part.num_too_long:,} rows are longer than max_length {max_length:,} tokens (truncation: {truncation})")
    print(f"{part.num_duplicates:,} rows repeat an earlier one")
