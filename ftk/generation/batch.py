"""Decoding one batch, from its prompts to the last row's end.

Shapes: B rows that are not finished, L positions, V vocabulary.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache

from ftk.core.positions import max_positions
from ftk.generation.cache import copy_for_rows, new_cache, sees_everything
from ftk.generation.sampling import choose


@dataclass(frozen=True, slots=True)
class Choice:
    """How the next token is chosen."""

    temperature: float
    top_p: float
    seed: int

    def draws(self, row: int, num: int) -> "np.ndarray[Any, np.dtype[np.float64]] | None":
        """One number in [0, 1) for each new token of a prompt; none where nothing is drawn."""
        return None if self.temperature == 0 else np.random.default_rng((self.seed, row)).random(num)


class Decoder:
    """A causal language model, and what decoding must know of it."""

    def __init__(self, causal_lm: nn.Module) -> None:
        self._causal_lm = causal_lm
        plain: Any = causal_lm
        if not isinstance(causal_lm, PreTrainedModel):
            plain = plain.get_base_model()
        parameters = inspect.signature(plain.forward).parameters
        self._takes_positions = "position_ids" in parameters
        # Without it the head would be computed for the whole prompt.
        self._keep_last = {"logits_to_keep": 1} if "logits_to_keep" in parameters else {}
        self.config = plain.config
        embedding = plain.get_input_embeddings().weight
        self.device: torch.device = embedding.device
        self.element_bytes: int = plain.dtype.itemsize
        self.max_positions = max_positions(self.config)

    def forward(self, input_ids_BL: Tensor, mask_BL: Tensor, position_ids_BL: Tensor, cache: DynamicCache) -> Tensor:
        """Logits after the last position, [B, V]; `mask_BL` covers what the cache holds as well."""
        positions = {"position_ids": position_ids_BL} if self._takes_positions else {}
        output = self._causal_lm(
            input_ids=input_ids_BL,
            attention_mask=mask_BL,
            past_key_values=cache,
            use_cache=True,
            **positions,
            **self._keep_last,
        )
        logits_BV: Tensor = output.logits[:, -1]
        return logits_BV

    def prefill_prefix(self, tokens: Sequence[int]) -> DynamicCache | None:
        """The cache of what all prompts begin with; None where a model cannot go on from it with padding between."""
        cache = new_cache(self.config, room=len(tokens))
        if not self._takes_positions or not sees_everything(cache):
            return None
        input_ids_BL = torch.tensor([list(tokens)], device=self.device)
        position_ids_BL = torch.arange(len(tokens), device=self.device)[None]
        self.forward(input_ids_BL, torch.ones_like(input_ids_BL), position_ids_BL, cache)
        return cache


@dataclass
class _Rows:
    """The rows of a batch that are not finished, side by side."""

    numbers: list[int]
    mask_BL: Tensor
    """bool over prefix, padding, prompt and room for new tokens."""
    lengths_B: Tensor
    """Tokens of each row so far, which is the position of the next one."""

    def keep(self, places: list[int]) -> Tensor:
        kept = torch.tensor(places, device=self.mask_BL.device)
        self.numbers = [self.numbers[place] for place in places]
        self.mask_BL, self.lengths_B = self.mask_BL[kept], self.lengths_B[kept]
        return kept


def decode_batch(
    decoder: Decoder,
    prompts: Mapping[int, Sequence[int]],
    *,
    prefix: DynamicCache | None,
    max_new_tokens: int,
    end_token_ids: Sequence[int],
    pad_token_id: int,
    choice: Choice,
    on_token: Callable[[int], None] | None,
) -> dict[int, list[int]]:
    """New tokens of each prompt, by its number."""
    num_shared = prefix.get_seq_length() if prefix else 0
    rows, logits_BV, cache = _prefill(decoder, prompts, prefix, num_shared, max_new_tokens, pad_token_id)
    width = rows.mask_BL.shape[1] - max_new_tokens
    limits = {number: _limit(decoder, len(prompt), max_new_tokens) for number, prompt in prompts.items()}
    draws = {number: choice.draws(number, max_new_tokens) for number in prompts}
    ends = frozenset(end_token_ids)
    answers: dict[int, list[int]] = {number: [] for number in prompts}
    for step in range(max_new_tokens):
        uniform_B = _uniform(draws, rows.numbers, step, logits_BV.device) if choice.temperature else None
        tokens_B = choose(logits_BV, uniform_B, temperature=choice.temperature, top_p=choice.top_p)
        goes_on = []
        for number, token in zip(rows.numbers, tokens_B.tolist(), strict=True):
            if token not in ends:
                answers[number].append(token)
                if on_token is not None:
                    on_token(token)
            goes_on.append(token not in ends and len(answers[number]) < limits[number])
        if not any(goes_on):
            break
        if not all(goes_on):
            kept = rows.keep(_closed_ranks(goes_on))
            tokens_B = tokens_B[kept]
            cache.reorder_cache(kept)
        logits_BV = decoder.forward(
            tokens_B[:, None], rows.mask_BL[:, : width + step + 1], rows.lengths_B[:, None], cache
        )
        rows.lengths_B = rows.lengths_B + 1
    return answers


def _prefill(
    decoder: Decoder,
    prompts: Mapping[int, Sequence[int]],
    prefix: DynamicCache | None,
    num_shared: int,
    max_new_tokens: int,
    pad_token_id: int,
) -> tuple[_Rows, Tensor, DynamicCache]:
    """Run the prompts after their shared prefix, padded at the left of what follows it."""
    rests = [list(prompt[num_shared:]) for prompt in prompts.values()]
    longest = max(map(len, rests))
    num_padding = torch.tensor([longest - len(rest) for rest in rests])[:, None]
    width = num_shared + longest
    input_ids_BL = torch.tensor([[pad_token_id] * (longest - len(rest)) + rest for rest in rests])
    place_L = torch.arange(longest)
    # Positions count from the first real token. Padding is never seen; it only needs a position that exists.
    position_ids_BL = (place_L - num_padding).clamp(min=0) + num_shared
    mask_BL = torch.ones(len(rests), width + max_new_tokens, dtype=torch.bool)
    mask_BL[:, num_shared:width] = place_L >= num_padding
    rows = _Rows(list(prompts), mask_BL.to(decoder.device), (width - num_padding[:, 0]).to(decoder.device))
    cache = (
        copy_for_rows(prefix, decoder.config, num_rows=len(rests), room=width + max_new_tokens)
        if prefix
        else new_cache(decoder.config, room=width + max_new_tokens)
    )
    logits_BV = decoder.forward(
        input_ids_BL.to(decoder.device), rows.mask_BL[:, :width], position_ids_BL.to(decoder.device), cache
    )
    return rows, logits_BV, cache


def _limit(decoder: Decoder, num_prompt_tokens: int, max_new_tokens: int) -> int:
    """New tokens that a row may have."""
    if decoder.max_positions is None:
        return max_new_tokens
    return min(max_new_tokens, decoder.max_positions - num_prompt_tokens)


def _uniform(draws: Mapping[int, Any], numbers: Sequence[int], step: int, device: torch.device) -> Tensor:
    return torch.tensor([draws[number][step] for number in numbers], dtype=torch.float64, device=device)


def _closed_ranks(stays: Sequence[bool]) -> list[int]:
    """Places of the rows that stay: rows from the end fill the gaps, so that few rows of the cache are moved."""
    num = sum(stays)
    spare = [place for place in range(num, len(stays)) if stays[place]]
    return [place if stays[place] else spare.pop() for place in range(num)]
