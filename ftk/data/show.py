"""Rows as text in which one sees what is learned.

Shapes: L positions.
"""

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ftk.core.types import Example

if TYPE_CHECKING:
    from rich.text import Text
    from transformers import PreTrainedTokenizerBase

LEGEND = "⟦learned answer, weight 1, or as behind it⟧×0.5  prompt, at its weight  ⟨weight 0⟩"


class Stretch(NamedTuple):
    """Neighbouring tokens of one loss weight."""

    text: str
    weight: float
    is_answer: bool
    num_tokens: int
    part: str = ""
    """Where a prompt has completions, which part this is: prompt, chosen or rejected, or a good or a bad completion."""


def stretches(example: Example, tokenizer: "PreTrainedTokenizerBase") -> list[Stretch]:
    """The row cut where the loss weight changes, and where a completion begins.

    Tokens are decoded together, since one character may be spread over several.
    """
    branches_L = np.zeros(len(example.token_ids_L), np.int8) if example.branches_L is None else example.branches_L
    kinds_L = np.stack([example.weights_L, example.answers_L, branches_L], dtype=np.float32)
    borders = np.flatnonzero((np.diff(kinds_L, axis=1) != 0).any(axis=0)) + 1
    pieces: Sequence[NDArray[np.int64]] = np.split(np.arange(len(example.token_ids_L)), borders)
    return [
        Stretch(
            text=str(tokenizer.decode(example.token_ids_L[part].tolist(), clean_up_tokenization_spaces=False)),
            weight=round(float(example.weights_L[part[0]]), 6),
            is_answer=bool(example.answers_L[part[0]]),
            num_tokens=len(part),
            part=_name(example, int(branches_L[part[0]])),
        )
        for part in pieces
    ]


def parts(row: Sequence[Stretch]) -> list[tuple[str, list[Stretch]]]:
    """Prompt and completions by name, in their order; one part without a name where the row is one text."""
    return [(name, list(some)) for name, some in groupby(row, key=lambda one: one.part)]


def plain(row: Sequence[Stretch]) -> str:
    """The row with marks around what is learned in full and what is not at all; readable without colour."""
    return "".join(_marked(one) for one in row)


def coloured(row: Sequence[Stretch]) -> "Text":
    """The row for a terminal: learned in full bold green, at a fraction yellow, not at all grey."""
    from rich.text import Text

    text = Text()
    for one in row:
        style = "bold green" if one.weight == 1 else "bright_black" if one.weight == 0 else "yellow"
        text.append(one.text, style=style)
    return text


def _name(example: Example, branch: int) -> str:
    if example.branches_L is None:
        return ""
    if branch < 1:
        return "aside" if branch else "prompt"
    if "desirable" in example.columns:
        return "good completion" if example.columns["desirable"] else "bad completion"
    return ("chosen", "rejected")[branch - 1]


def _marked(one: Stretch) -> str:
    if one.weight == 1:
        return f"⟦{one.text}⟧"
    if one.is_answer and one.weight:
        return f"⟦{one.text}⟧×{one.weight:g}"
    return f"⟨{one.text}⟩" if one.weight == 0 else one.text
