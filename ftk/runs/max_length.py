"""How long a row may be, by what the recipe asks and how far the model reads."""

from ftk.core.errors import RecipeError
from ftk.models.load import load_config, max_positions
from ftk.recipe.schema import Recipe

DEFAULT_MAX_LENGTH = 2048
"""Tokens of the longest row where the recipe says nothing; the model's positions may allow less."""


def max_length_of(recipe: Recipe) -> int:
    """Tokens of the longest row.

    Raises:
        RecipeError: `data.max_length` is beyond the model's positions.
    """
    positions = max_positions(load_config(recipe.model))
    asked = recipe.data.max_length
    if asked is None:
        is_extended = recipe.model.context is not None and recipe.model.context.extends
        most = positions if is_extended and positions is not None else DEFAULT_MAX_LENGTH
        return min(most, positions or DEFAULT_MAX_LENGTH)
    if positions is not None and asked > positions:
        raise RecipeError(
            f"{asked} tokens are more than the {positions} positions that {recipe.model.id} has. Set it to "
            f"{positions} or less, or have the model read further: model.context.length={asked}",
            place="data.max_length",
        )
    return asked
