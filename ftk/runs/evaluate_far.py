"""What `ftk eval` measures of reading far: perplexity by position, and pass keys in long texts, as a run does."""

from collections.abc import Iterable

from ftk.core.positions import max_positions
from ftk.core.types import Batch
from ftk.evaluation.passkey import passkey_metrics
from ftk.evaluation.positions import position_metrics
from ftk.models.scoring import ScoringModel
from ftk.recipe.schema import Recipe
from ftk.runs.forward_size import forward_tokens
from ftk.runs.passkeys import check_passkey, passkey_lengths
from ftk.runs.ready_model import ReadyModel


def check_pass_keys(recipe: Recipe, model: ReadyModel, *, max_length: int) -> None:
    """
    Raises:
        RecipeError: a length is beyond the model's positions, or too short for key and question.
    """
    if recipe.evaluation.passkey is not None:
        check_passkey(
            recipe.evaluation.passkey,
            model.tokenizer,
            max_length=max_length,
            positions=max_positions(model.causal_lm.config),
            seed=recipe.seed,
            name=recipe.model.id,
        )


def pass_keys(recipe: Recipe, model: ReadyModel, *, max_length: int) -> dict[str, float]:
    """Shares of texts whose key is found, by length and depth; none where the recipe does not ask for them."""
    settings, seed = recipe.evaluation.passkey, recipe.seed
    if settings is None:
        return {}
    device = next(model.causal_lm.parameters()).device
    return passkey_metrics(
        ScoringModel(model.causal_lm),
        model.tokenizer,
        settings,
        lengths=passkey_lengths(settings, model.tokenizer, max_length=max_length, seed=seed),
        tokens_per_batch=forward_tokens(device),
        seed=seed,
        device=device,
    )


def by_position(recipe: Recipe, model: ReadyModel, batches: Iterable[Batch]) -> dict[str, float]:
    """Perplexity in stretches of positions; none where the recipe does not ask for it."""
    return position_metrics(ScoringModel(model.causal_lm), batches) if recipe.evaluation.by_position else {}
