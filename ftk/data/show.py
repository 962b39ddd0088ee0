"""Rows as text in which one sees what is learned.

Shapes: L positions.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ftk.core.types import Example

if TYPE_CHECKING:
    from rich.text import Text
    from transformers import PreTrainedTokenizerBase

LEGEND = "⟦learned answer, weight 1⟧  prompt, at its weight  ⟨weight 0⟩"


class Stretch(NamedTuple):
    """Neighbouring tokens of one loss weight."""

    text: str
    weight: float
    is_answer: bool
    num_tokens: int


def stretches(example: Example, tokenizer: "PreTrainedTokenizerBase") -> list[Stretch]:
    """The row cut where the loss weight changes.

    Tokens are decoded together, since one character may be spread over several.
    """
    kinds_L = np.stack([example.weights_L, example.answers_L.astype(np.float32)])
    borders = np.flatnonzero((np.diff(kinds_L, axis=1) != 0).any(axis=0)) + 1
    parts: Sequence[NDArray[np.int64]] = np.split(np.arange(len(example.token_ids_L)), borders)
    return [
        Stretch(
            text=str(tokenizer.decode(example.token_ids_L[part].tolist(), clean_up_tokenization_spaces=False)),
            weight=round(float(example.weights_L[part[0]]), 6),
            is_answer=bool(example.answers_L[part[0]]),
            num_tokens=len(part),
        )
        for part in parts
    ]


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


def _marked(one: Stretch) -> str:
    if one.weight == 1:
        return f"⟦{one.text}⟧"
    return f"⟨{one.text}⟩" if one.weight == 0 else one.text
