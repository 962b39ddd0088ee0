"""The micro-batches of a step that no data is read for: rows as long as they may be, every token of which is learned.

Shapes: L tokens of a row.
"""

import numpy as np
from numpy.typing import NDArray

from ftk.core.types import NUM_BYTES, REFERENCE_LOGPS, Batch, Example
from ftk.data.collate import collate
from ftk.recipe.schema import Recipe

DOCUMENTS = 4
"""Documents of a packed row. How many there are decides nothing but that a mask keeps them apart."""


def imagined_batches(recipe: Recipe, *, rows: int, length: int, count: int) -> list[Batch]:
    """So many equal micro-batches of `rows` rows of `length` tokens, as the task of a recipe has them.

    Of a preference, half of a text of `length` tokens is the prompt, and the row has two answers after it.
    """
    if recipe.task.rows in ("pairs", "unpaired"):
        length += length // 2
    examples = []
    for _ in range(rows):
        parts = np.array_split(np.arange(length), DOCUMENTS if recipe.data.packing else 1)
        examples.append([_example(recipe, len(part)) for part in parts if len(part)])
    batch = collate(examples, pad_token_id=0)
    return [batch] * count


def _example(recipe: Recipe, length: int) -> Example:
    tokens_L = np.ones(length, np.int32)
    ones_L = np.ones(length, np.float32)
    match recipe.task.rows:
        case "pairs" | "unpaired" as rows:
            branches_L = _branches(length, (1, 2) if rows == "pairs" else (1, -1))
            columns = {REFERENCE_LOGPS: np.zeros(2, np.float32), "desirable": np.ones((), np.float32)}
            learned_L = branches_L != 0
            return Example(tokens_L, learned_L.astype(np.float32), learned_L, 0, branches_L, columns)
        case "texts":
            return Example(tokens_L, ones_L, ones_L > 0, 0, None, {NUM_BYTES: np.ones((), np.float32)})
        case _:
            return Example(tokens_L, ones_L, ones_L > 0, 0)


def _branches(length: int, numbers: tuple[int, int]) -> NDArray[np.int8]:
    """A prompt and two completions of a third of the row each."""
    thirds = [len(part) for part in np.array_split(np.arange(length), 3)]
    return np.repeat([0, *numbers], thirds).astype(np.int8)
