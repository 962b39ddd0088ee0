"""Embeddings and output heads of models with different tokenizers, their rows matched by token.

Shapes: M models, V tokens of the output, K tokens that some model lacks, D width.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ftk.core.errors import RecipeError
from ftk.merging.configuration import ModelName, TokenRow


@dataclass(frozen=True)
class TokenMatch:
    """Where the tokens of the output are in each model."""

    num_tokens: int
    """Rows of the output, padding included."""
    rows: Mapping[ModelName, Tensor]
    """int64 [V] by model: the row of each token, -1 where the model lacks it."""
    base: ModelName | None
    given: Mapping[int, TokenRow] = field(default_factory=dict)
    """Rows whose origin was said, by the token's number in the output."""
    numbers: Mapping[ModelName, Mapping[str, int]] = field(default_factory=dict)
    """Each model's own tokens, where `given` names one."""

    @property
    def num_padding(self) -> int:
        """Rows at the end that are no token."""
        return self.num_tokens - len(next(iter(self.rows.values())))


def matched(
    tensors_M: Sequence[Tensor],
    models_M: Sequence[ModelName],
    match: TokenMatch,
    *,
    read: Callable[[ModelName], Tensor],
) -> list[Tensor]:
    """Each model's tensor with the output's tokens as rows.

    A model that lacks a token gets the row that was said for it, else the base's, else the mean over the models that
    have it. Padding is the mean of a model's rows.

    Args:
        tensors_M: embeddings or head [rows, D], or a head's bias [rows], of each model.
        models_M: their names.
        match: where the tokens are.
        read: the same tensor of a model that is named as origin and takes no part itself.

    Raises:
        RecipeError: a token is in none of the models and its row was not said.

    Source: mergekit's README, "Token Embedding Handling".
    """
    rows_MV = torch.stack([match.rows[model] for model in models_M])
    lacking_V = (rows_MV < 0).any(0)
    lacking_V[list(match.given)] = True
    numbers_K = lacking_V.nonzero().flatten()
    dtype = tensors_M[0].dtype
    for tensor in tensors_M:
        dtype = torch.promote_types(dtype, tensor.dtype)
    others_K = _default_rows(tensors_M, models_M, rows_MV[:, numbers_K], match).to(dtype)
    for place, number in enumerate(numbers_K.tolist()):
        given = match.given.get(number)
        if given is not None and given.source is not None:
            others_K[place] = _given_row(given, number, match, tensors_M, models_M, read)
    forced_K = torch.tensor([match.given.get(n, TokenRow()).force for n in numbers_K.tolist()], dtype=torch.bool)
    results: list[Tensor] = []
    for tensor, rows_V in zip(tensors_M, rows_MV, strict=True):
        result = tensor.new_empty((match.num_tokens, *tensor.shape[1:]), dtype=dtype)
        torch.index_select(tensor.to(dtype), 0, rows_V.clamp(min=0), out=result[: len(rows_V)])
        replaced_K = (rows_V[numbers_K] < 0) | forced_K
        result[numbers_K[replaced_K]] = others_K[replaced_K]
        if match.num_padding:
            result[len(rows_V) :] = result[: len(rows_V)].mean(0, dtype=torch.float32).to(dtype)
        results.append(result)
    return results


def _default_rows(
    tensors_M: Sequence[Tensor], models_M: Sequence[ModelName], rows_MK: Tensor, match: TokenMatch
) -> Tensor:
    """The base's row where it has the token, else the mean over models that do, in float32."""
    sum_K = torch.zeros((rows_MK.shape[1], *tensors_M[0].shape[1:]))
    count_K = torch.zeros(rows_MK.shape[1])
    for tensor, rows_K in zip(tensors_M, rows_MK, strict=True):
        has = rows_K >= 0
        sum_K[has] += tensor[rows_K[has]].float()
        count_K[has] += 1
    mean_K = sum_K / count_K.clamp(min=1).view(-1, *[1] * (sum_K.dim() - 1))
    if match.base is not None and match.base in models_M:
        at = list(models_M).index(match.base)
        has = rows_MK[at] >= 0
        mean_K[has] = tensors_M[at][rows_MK[at][has]].float()
    return mean_K


def _given_row(
    given: TokenRow,
    number: int,
    match: TokenMatch,
    tensors_M: Sequence[Tensor],
    models_M: Sequence[ModelName],
    read: Callable[[ModelName], Tensor],
) -> Tensor:
    if given.source == "zero" or given.source is None:
        return torch.zeros(())
    model = given.source
    if given.token_id is not None:
        row = given.token_id
    elif given.token is not None:
        row = match.numbers[model].get(given.token, -1)
    else:
        row = int(match.rows[model][number])
    tensor = tensors_M[list(models_M).index(model)] if model in models_M else read(model)
    if not 0 <= row < len(tensor):
        wanted = given.token if given.token is not None else given.token_id if given.token_id is not None else number
        raise RecipeError(f"tokenizer.tokens: {model} has no token {wanted!r} to take an embedding from")
    return tensor[row]
