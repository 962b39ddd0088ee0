"""Passkey retrieval as a recipe asks for it: how long its texts are, and whether they can be made and read."""

from typing import TYPE_CHECKING

from ftk.core.errors import RecipeError
from ftk.evaluation.passkey import Passkey, passkey_rows

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def passkey_lengths(
    settings: Passkey, tokenizer: "PreTrainedTokenizerBase", *, max_length: int, seed: int
) -> tuple[int, ...]:
    """Tokens of the texts, shortest first; by default shares of `max_length`, as far as they hold key and question."""
    if settings.lengths:
        return tuple(sorted(set(settings.lengths)))
    shares = [max_length // share for share in (8, 4, 2, 1)]
    return (*(length for length in shares[:-1] if _holds(settings, tokenizer, length, seed)), shares[-1])


def check_passkey(
    settings: Passkey,
    tokenizer: "PreTrainedTokenizerBase",
    *,
    max_length: int,
    positions: int | None,
    seed: int,
    name: str,
) -> None:
    """Find out, before anything is written or learned, that the texts can be made and read.

    Args:
        settings: what is asked for.
        tokenizer: of the model.
        max_length: tokens of a row.
        positions: that the model has; None where it sets no bound.
        seed: of the keys.
        name: of the model.

    Raises:
        RecipeError: a length is beyond the model's positions, or too short for key and question.
    """
    for length in passkey_lengths(settings, tokenizer, max_length=max_length, seed=seed):
        if positions is not None and length > positions:
            raise RecipeError(
                f"a text of {length} tokens is longer than the {positions} positions that {name} has. Ask for shorter "
                f"ones, or train it to read further: model.context.length={length}",
                place="evaluation.passkey.lengths",
            )
        _make(settings, tokenizer, length, seed)


def _holds(settings: Passkey, tokenizer: "PreTrainedTokenizerBase", length: int, seed: int) -> bool:
    try:
        _make(settings, tokenizer, length, seed)
    except RecipeError:
        return False
    return True


def _make(settings: Passkey, tokenizer: "PreTrainedTokenizerBase", length: int, seed: int) -> None:
    # The very texts that will be measured, as keys may take different numbers of tokens.
    for depth in settings.depths:
        passkey_rows(tokenizer, length=length, depth=depth, count=settings.rows, seed=seed)
