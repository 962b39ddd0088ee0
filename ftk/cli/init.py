"""`ftk init`."""

from collections.abc import Mapping
from typing import Annotated

import typer

from ftk.core.tell import tell


def command(
    data: Annotated[str, typer.Argument(help="A file, a folder of files, a hub data set id or ftk://orders/train.")],
    *,
    model: Annotated[str, typer.Option("--model", help="Hub id, folder or run folder of the model.")],
    gpu: Annotated[
        str | None, typer.Option("--gpu", help="24GB, or a name such as 'RTX 4090'; by default what is here.")
    ] = None,
    out: Annotated[str, typer.Option("--out", help="The new recipe; never overwritten.")] = "recipe.yaml",
    eval: Annotated[
        str | None, typer.Option("--eval", help="Held-out rows; by default some of the data are held out.")
    ] = None,
) -> Mapping[str, object]:
    """Write a first recipe for some data, a model and a memory, with the reason for each choice.

    Only the data, the tokenizer and the model's configuration are read; no weights.
    """
    from ftk.runs.advising.init import begin

    begun = begin(data, model=model, gpu=gpu, out=out, eval=eval, tell=tell)
    for choice in begun.choices:
        if choice.reason:
            print(f"{choice.path}: {choice.reason}")
    for advice in begun.loaded.advice:
        tell(f"advice: {advice}")
    print(f"Wrote {begun.file}. Look at the rows with `ftk data preview {begun.file}`, then `ftk train {begun.file}`.")
    return begun.as_json()
