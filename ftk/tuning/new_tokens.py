"""New tokens beside adapters: their rows of the embedding and the head are trained, all other rows stay."""

from collections.abc import Collection, Sequence
from typing import Any

from torch import nn

from ftk.core.errors import RecipeError


def token_rows(
    model: Any, new_token_ids: Sequence[int], *, trained: Collection[str] = ()
) -> dict[str, list[int]] | None:
    """PEFT's `trainable_token_indices` for new tokens: by module, the head too where it has weights of its own.

    Args:
        trained: full names of modules that move by other means, rows of new tokens included.
    """
    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    is_tied = head is None or head.weight is embeddings.weight
    names = [_name(model, module) for module in ([embeddings] if is_tied else [embeddings, head])]
    rows = {name: list(new_token_ids) for name in names if name not in trained}
    return rows if rows and new_token_ids else None


def refuse_new_tokens(new_token_ids: Sequence[int]) -> None:
    """
    Raises:
        RecipeError: an adapter that was made without new tokens cannot take any.
    """
    if new_token_ids:
        raise RecipeError(
            "the model is an adapter, and its tokenizer lacks the tokens that this task needs: an adapter takes new "
            "tokens only as it is made. Merge it into its base first (ftk merge), or take tuning: full",
            place="model",
        )


def _name(model: Any, wanted: nn.Module) -> str:
    return next(str(name) for name, module in model.named_modules() if module is wanted)
