"""`ftk data fix`, `convert` and `split`: data files into new ones."""

from collections.abc import Mapping
from typing import Annotated, Literal

import typer

from ftk.cli.flags import columns_by_role

Input = Annotated[str, typer.Argument(help="A file, a folder of files, a hub data set id or ftk://orders/train.")]
Force = Annotated[bool, typer.Option("--force", help="Overwrite a file of that name; never the input.")]
Threshold = Annotated[
    float, typer.Option("--threshold", min=0.1, max=1.0, help="Share of their text that near-duplicates have alike.")
]


def fix(
    input: Input,
    *,
    out: Annotated[str, typer.Option("--out", help="The new file; its suffix says its kind.")],
    skip: Annotated[
        str | None, typer.Option("--skip", help="Mechanical fixes to leave out, such as unicode,duplicates.")
    ] = None,
    lower_case: Annotated[bool, typer.Option("--lower-case", help="Every letter becomes small.")] = False,
    compatibility: Annotated[
        bool, typer.Option("--compatibility", help="Full-width letters, ligatures, special spaces become plain (NFKC).")
    ] = False,
    collapse_spaces: Annotated[
        bool, typer.Option("--collapse-spaces", help="One space for several; takes indentation away.")
    ] = False,
    mojibake: Annotated[
        bool, typer.Option("--mojibake", help="Read UTF-8 again that was read as Windows-1252: Ã© becomes é.")
    ] = False,
    near_duplicates: Annotated[
        bool, typer.Option("--near-duplicates", help="Rows go that are nearly equal to an earlier one.")
    ] = False,
    threshold: Threshold = 0.8,
    encoding: Annotated[
        str | None, typer.Option("--encoding", help="What text files are in that are not UTF-8, such as cp1252.")
    ] = None,
    log: Annotated[str | None, typer.Option("--log", help="Where each change is noted (JSONL); OUT.log.")] = None,
    force: Force = False,
) -> Mapping[str, object]:
    """Mend rows into a new file, and note every change beside it.

    What changes no meaning is mended unless it is skipped: control_characters, unicode, whitespace, empty, duplicates.
    The rest only when asked. The input is never altered.
    """
    from ftk.runs.fix_data import fix_data

    asked = {
        "lower_case": lower_case,
        "compatibility": compatibility,
        "collapse_spaces": collapse_spaces,
        "mojibake": mojibake,
        "near_duplicates": near_duplicates,
    }
    result = fix_data(
        input,
        out,
        asked=[name for name, is_asked in asked.items() if is_asked],
        skipped=[name.strip().replace("-", "_") for name in (skip or "").split(",") if name.strip()],
        encoding=encoding,
        threshold=threshold,
        log=log,
        force=force,
    )
    for kind, number in result.changes.items():
        print(f"{kind}: {number:,}")
    if result.unread:
        print(f"{len(result.unread):,} rows do not read and were kept, the first at {result.unread[0]}")
    print(
        f"{result.num_rows_written:,} of {result.num_rows:,} rows in {result.output}; every change in {result.log}. "
        f"{input} is as it was"
    )
    return result.as_json()


def convert(
    input: Input,
    *,
    to: Annotated[
        str,
        typer.Option(
            "--to", help="messages, sharegpt, alpaca, prompt_completion, question_answer or gemini (its contents)."
        ),
    ],
    out: Annotated[str, typer.Option("--out", help="The new file; its suffix says its kind.")],
    format: Annotated[str, typer.Option("--format", help="Format of the input; found by default.")] = "auto",
    columns: Annotated[
        str | None, typer.Option("--columns", help="Column by role, such as question=problem,answer=solution.")
    ] = None,
    system: Annotated[
        Literal["fold", "drop", "refuse"],
        typer.Option("--system", help="System messages that the format cannot hold: put before the question, ..."),
    ] = "fold",
    turns: Annotated[
        Literal["refuse", "split", "drop"],
        typer.Option(
            "--turns", help="Turns that it cannot hold: an error, one row an answer, or such rows are left out."
        ),
    ] = "refuse",
    tools: Annotated[
        Literal["refuse", "drop"],
        typer.Option("--tools", help="Tools that it cannot hold: an error, or rows that call them are left out."),
    ] = "refuse",
    keep_columns: Annotated[
        bool, typer.Option("--keep-columns", help="Columns that are no part of either format go along.")
    ] = False,
    force: Force = False,
) -> Mapping[str, object]:
    """Write rows in another format, and say what it cannot hold.

    Every row is read back and compared with what it was.
    """
    from ftk.data.convert import Policy
    from ftk.runs.convert_data import convert_data

    result = convert_data(
        input,
        to,
        out,
        format=format,
        columns=columns_by_role(columns),
        policy=Policy(system=system, turns=turns, tools=tools),
        keep_columns=keep_columns,
        force=force,
    )
    print(
        f"{result.num_rows:,} rows of format {result.source_format}, {result.num_rows_written:,} rows of format "
        f"{result.format} in {result.output}"
    )
    for what, number in result.lost.items():
        print(f"lost in {number:,} rows: {what}")
    if not result.lost:
        print("nothing was lost")
    return result.as_json()


def split(
    input: Input,
    *,
    out: Annotated[str, typer.Option("--out", help="A new folder for train, eval and test.")],
    eval: Annotated[str, typer.Option("--eval", help="Share of the rows (0.1) or number of rows (200).")],
    test: Annotated[str | None, typer.Option("--test", help="Share or number of rows of a third part.")] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Which rows are drawn.")] = 0,
    stratify: Annotated[
        str | None, typer.Option("--stratify", help="A column whose values have equal shares in all parts.")
    ] = None,
    group: Annotated[
        str | None,
        typer.Option("--group", help="A column whose equal values stay together, or near-duplicates."),
    ] = None,
    threshold: Threshold = 0.8,
) -> Mapping[str, object]:
    """Deal rows to training, evaluation and test by a seed.

    Counts are exact; with groups, which are never torn, the nearest that whole groups add up to.
    """
    from ftk.runs.split_data import split_data

    result = split_data(
        input, out, eval=eval, test=test, seed=seed, stratify=stratify, group=group, threshold=threshold
    )
    for name, file in result.files.items():
        asked = result.asked.get(name)
        less = f", {asked:,} were asked: groups are never torn" if asked not in (None, result.num_rows[name]) else ""
        print(f"{name}: {result.num_rows[name]:,} rows in {file}{less}")
    if result.num_groups is not None:
        print(f"{result.num_groups:,} groups by {group}, none torn")
    for value, counts in list((result.strata or {}).items())[:20]:
        print(f"  {stratify} {value}: {', '.join(f'{number:,} {name}' for name, number in counts.items())}")
    if result.num_torn:
        told = f"{result.num_torn:,} rows outside of train are equal to one in it"
        print(f"{told}. --group near-duplicates keeps them together")
    return result.as_json()
