"""The rows of a micro-batch that no data is read for: as long as they may be, and as the model sees them."""

from typing import NamedTuple

from ftk.core.errors import RecipeError
from ftk.recipe.schema import Recipe
from ftk.runs.model_numbers import ModelNumbers

DEFAULT_LENGTH = 2048
"""Tokens of a row where nothing is said, as `data.max_length` has it."""


def micro_batch_rows(recipe: Recipe) -> int:
    """Examples of a micro-batch; as training cuts it, a device is never given more than its part of a step."""
    training = recipe.training
    rows = 1 if training.micro_batch_size == "auto" else training.micro_batch_size
    if training.batch_tokens is not None:
        return rows
    processes = 1 if recipe.parallel.processes == "auto" else recipe.parallel.processes
    return min(rows, -(-training.batch_size // processes))


def text_length(recipe: Recipe, numbers: ModelNumbers, *, asked: int | None = None) -> int:
    """Tokens of the longest text: `asked`, or `data.max_length`, or what a run takes where that is not said.

    Raises:
        RecipeError: it is beyond the model's positions.
    """
    place = "data.max_length" if asked is None else "--rollout"
    asked, positions = asked or recipe.data.max_length, numbers.architecture.positions
    if asked is None:
        is_extended = recipe.model.context is not None and recipe.model.context.extends
        return positions if is_extended and positions else min(DEFAULT_LENGTH, positions or DEFAULT_LENGTH)
    if positions is not None and asked > positions:
        raise RecipeError(
            f"{asked} tokens are more than the {positions} positions that {numbers.name} has. Set it to {positions} or "
            f"less, or have the model read further: model.context.length={asked}",
            place=place,
        )
    return asked


class SeenRows(NamedTuple):
    """A micro-batch as the model sees it."""

    rows: int
    length: int
    scored: int
    packed: bool
    """Whether a mask keeps texts of a row apart."""


def seen_rows(recipe: Recipe, numbers: ModelNumbers, *, takes_masks: bool) -> SeenRows:
    """Of a preference, half of a text is taken to be the prompt. A pair is a row with its prompt once.

    Where the kernel takes no mask, or a window does not hold such a row, each answer has a row of its own.
    """
    rows, length, packed = micro_batch_rows(recipe), text_length(recipe, numbers), recipe.data.packing
    answer = length // 2
    if recipe.task.rows == "unpaired":
        return SeenRows(rows, length, rows * answer, packed)
    if recipe.task.rows != "pairs":
        return SeenRows(rows, length, rows * (length - 1), packed)
    window = numbers.architecture.sliding_window
    if not takes_masks or (window is not None and length + answer > window):
        return SeenRows(2 * rows, length, 2 * rows * answer, packed)
    return SeenRows(rows, length + answer, 2 * rows * answer, True)
