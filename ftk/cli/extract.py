"""`ftk extract`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer


def command(
    base: Annotated[str, typer.Argument(help="The model before: folder, run or hub id.")],
    tuned: Annotated[str, typer.Argument(help="The model after, of the same shape.")],
    *,
    out: Annotated[str, typer.Option("--out", help="Folder of the adapter, which must not exist yet.")],
    rank: Annotated[int | None, typer.Option("--rank", help="Rank of every adapted matrix.")] = None,
    energy: Annotated[
        float | None, typer.Option("--energy", help="Instead of a rank: share of each difference to hold, such as 0.9.")
    ] = None,
) -> Mapping[str, object]:
    """Take a LoRA out of two whole models: what nearest brings the first to the second.

    Norms, biases, embeddings and a head that differ are in the adapter whole.
    """
    from ftk.runs.merging.extract import extract_adapter

    result = extract_adapter(base, tuned, out=Path(out).expanduser(), rank=rank, energy=energy)
    ranks = {result["smallest_rank"], result["largest_rank"]}
    print(
        f"Wrote {result['output']}: {result['num_modules']} matrices of rank {' to '.join(map(str, sorted(ranks)))}, "
        f"{result['energy']:.1%} of their difference; {len(result['whole_modules'])} other modules whole."
    )
    return result
