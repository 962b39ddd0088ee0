"""Batched decoding with a key-value cache.

Shapes: B rows of a batch, L positions, V vocabulary.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import nn

from ftk.core.errors import DataError
from ftk.core.mode import evaluating
from ftk.generation.batch import Choice, Decoder, decode_batch
from ftk.generation.cache import bytes_per_position

PREFILL_TOKENS = 16_384
"""Prompt tokens of one forward pass; their activations are the peak of memory on small models."""
MIN_SHARED_TOKENS = 32
"""Prompts that begin with as many equal tokens have these computed once; below, copying costs as much as computing."""


def decode(
    causal_lm: nn.Module,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    end_token_ids: Sequence[int],
    pad_token_id: int = 0,
    batch_size: int | None = None,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
    on_token: Callable[[int], None] | None = None,
    tell: Callable[[str], None] | None = None,
) -> list[list[int]]:
    """New tokens for each prompt, without the end token.

    A row's tokens do not depend on the rows beside it, but for the rounding of batched products. Prompts are sorted by
    length, padded at the left, and leave the batch when they are finished. What all prompts begin with, such as
    examples, is computed once.

    Args:
        causal_lm: a causal language model of transformers, or one with PEFT's adapters. Its mode is restored.
        max_new_tokens: stop after so many; rows also stop where the model's positions end.
        end_token_ids: tokens that end an answer.
        batch_size: most rows at a time; by default what a few gigabytes of cache hold.
        temperature: 0 takes the most probable token; 1 draws from the model's distribution.
        top_p: draw from the fewest tokens that together have this probability.
        seed: with the place of the prompt it fixes the draws.
        on_token: called with each token as soon as it is known; for a single prompt.
        tell: called with a sentence for a person where an answer was cut by the model's positions.

    Raises:
        DataError: a prompt is empty or leaves no position for an answer.
        ValueError: `on_token` with more than one prompt.
    """
    if on_token is not None and len(prompts) != 1:
        raise ValueError("on_token follows a single prompt")
    decoder = Decoder(causal_lm)
    _check(prompts, decoder.max_positions)
    choice = Choice(temperature=temperature, top_p=top_p, seed=seed)
    answers: list[list[int]] = [[] for _ in prompts]
    with evaluating(causal_lm), torch.no_grad():
        shared = _shared_length(prompts)
        prefix = decoder.prefill_prefix(prompts[0][:shared]) if shared >= MIN_SHARED_TOKENS else None
        for rows in _batches(decoder, prompts, max_new_tokens, batch_size, shared if prefix else 0):
            found = decode_batch(
                decoder,
                {row: prompts[row] for row in rows},
                prefix=prefix,
                max_new_tokens=max_new_tokens,
                end_token_ids=end_token_ids,
                pad_token_id=pad_token_id,
                choice=choice,
                on_token=on_token,
            )
            for row, tokens in found.items():
                answers[row] = tokens
    if tell is not None:
        _tell_of_cut_answers(prompts, answers, decoder.max_positions, max_new_tokens, tell)
    return answers


def _check(prompts: Sequence[Sequence[int]], max_positions: int | None) -> None:
    for number, prompt in enumerate(prompts, start=1):
        if not prompt:
            raise DataError(f"prompt {number} is empty; there is nothing to continue")
        if max_positions is not None and len(prompt) >= max_positions:
            raise DataError(
                f"prompt {number} has {len(prompt)} tokens and the model {max_positions} positions, so none is left "
                "for an answer. Shorten it, or show fewer examples"
            )


def _shared_length(prompts: Sequence[Sequence[int]]) -> int:
    """How many tokens all prompts begin with, their last one apart; 0 for a single prompt."""
    if len(prompts) < 2:
        return 0
    # The smallest and the largest in dictionary order differ first where any two do.
    rows = [tuple(prompt) for prompt in prompts]
    first, last = min(rows), max(rows)
    shortest = min(map(len, rows))
    return next((place for place in range(shortest - 1) if first[place] != last[place]), shortest - 1)


def _batches(
    decoder: Decoder,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    batch_size: int | None,
    num_shared: int,
) -> Iterator[list[int]]:
    """Rows in batches, longest first, so that what runs out of memory does so at once."""
    position_bytes = bytes_per_position(decoder.config, element_bytes=decoder.element_bytes)
    order = sorted(range(len(prompts)), key=lambda row: len(prompts[row]), reverse=True)
    start = 0
    while start < len(order):
        longest = len(prompts[order[start]])
        by_cache = _cache_bytes(decoder.device) // (position_bytes * (longest + max_new_tokens))
        by_tokens = PREFILL_TOKENS // (longest - num_shared)
        most = max(1, min(by_cache, by_tokens, batch_size or len(order)))
        yield order[start : start + most]
        start += most


def _cache_bytes(device: torch.device) -> int:
    """What the cache of a batch may take: half of what is free on an accelerator, 1 GiB in main memory."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0]) // 2
    return 2**30


def _tell_of_cut_answers(
    prompts: Sequence[Sequence[int]],
    answers: Sequence[Sequence[int]],
    max_positions: int | None,
    max_new_tokens: int,
    tell: Callable[[str], None],
) -> None:
    if max_positions is None:
        return
    pairs = zip(prompts, answers, strict=True)
    num_cut = sum(
        len(prompt) + len(answer) >= max_positions and len(answer) < max_new_tokens for prompt, answer in pairs
    )
    if num_cut:
        tell(
            f"{num_cut} of {len(answers)} answers stopped at the model's last position ({max_positions}) "
            f"before {max_new_tokens} new tokens"
        )
