"""Passkey retrieval: does the model find five digits that were said once, somewhere in a long text?

Source: Mohtashami and Jaggi 2023 (arXiv:2305.16300), section 4.2; by depth and length as a heatmap as is customary.

Shapes: B rows, L positions.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import torch
from pydantic import Field
from torch import nn

from ftk.core.config import OneOrMore, Section
from ftk.core.errors import RecipeError
from ftk.core.mode import evaluating
from ftk.core.types import Batch

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

INTRODUCTION = "There is a pass key hidden in this text. Find it and keep it in mind.\n"
FILLER = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again. "
NEEDLE = "The pass key is {key}. Remember it. {key} is the pass key. "
QUESTION = "\nWhat is the pass key? The pass key is"
ANSWER = " {key}"


class Passkey(Section):
    """Whether the model finds five digits in a long text, by the length of the text and the depth of the digits."""

    lengths: Annotated[tuple[Annotated[int, Field(ge=8)], ...], OneOrMore()] = ()
    """Tokens of the texts, answer included; by default an eighth, a quarter, a half and all of `data.max_length`, those
    left out that are too short for key and question."""
    depths: Annotated[tuple[Annotated[float, Field(ge=0, le=1)], ...], OneOrMore()] = (0.0, 0.25, 0.5, 0.75, 1.0)
    """Where the digits stand: 0 at the beginning of a text, 1 right before the question."""
    rows: Annotated[int, Field(gt=0)] = 4
    """Texts for each length and depth."""


@dataclass(frozen=True)
class PasskeyRow:
    """One text with its question, and the answer as its last tokens."""

    token_ids: list[int]
    num_answer_tokens: int


def passkey_row(tokenizer: "PreTrainedTokenizerBase", *, length: int, depth: float, key: str) -> PasskeyRow:
    """A text of exactly `length` tokens with the key at `depth` of its filler.

    Raises:
        RecipeError: so few tokens do not hold key and question.
    """

    def tokens(text: str, **named: Any) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False, verbose=False, **named)["input_ids"])

    begin = [] if tokenizer.bos_token_id is None else [int(tokenizer.bos_token_id)]
    head = begin + tokens(INTRODUCTION)
    needle, question = tokens(NEEDLE.format(key=key)), tokens(QUESTION)
    answer, filler = tokens(ANSWER.format(key=key)), tokens(FILLER)
    num_filler = length - len(head) - len(needle) - len(question) - len(answer)
    if num_filler < 0:
        raise RecipeError(
            f"a text of {length} tokens cannot hold the pass key and the question, which take {length - num_filler}. "
            "Ask for longer ones",
            place="evaluation.passkey.lengths",
        )
    num_before = round(num_filler * depth)
    endless = filler * (num_filler // len(filler) + 1)
    ids = head + endless[:num_before] + needle + endless[num_before:num_filler] + question + answer
    return PasskeyRow(ids, len(answer))


def passkey_rows(
    tokenizer: "PreTrainedTokenizerBase", *, length: int, depth: float, count: int, seed: int
) -> list[PasskeyRow]:
    """Texts with keys that depend on seed, length and depth alone."""
    draws = random.Random(f"{seed} {length} {depth}")
    keys = [str(draws.randrange(10_000, 100_000)) for _ in range(count)]
    return [passkey_row(tokenizer, length=length, depth=depth, key=key) for key in keys]


def passkey_metrics(
    model: nn.Module,
    tokenizer: "PreTrainedTokenizerBase",
    settings: Passkey,
    *,
    lengths: Sequence[int],
    tokens_per_batch: int,
    seed: int,
    device: torch.device,
) -> dict[str, float]:
    """Shares of texts whose key the model finds: `passkey` over all, `passkey_1024` by length, and
    `passkey_1024@depth=0.5` by both.

    A key is found where each of its tokens is the most probable one after those before it, which is what greedy
    decoding writes. Every process measures all texts.

    Args:
        model: maps a `Batch` to `TokenScores`.
    """
    found: dict[tuple[int, float], float] = {}
    with evaluating(model), torch.no_grad():
        for length in lengths:
            for depth in settings.depths:
                rows = passkey_rows(tokenizer, length=length, depth=depth, count=settings.rows, seed=seed)
                num_rows = max(1, tokens_per_batch // length)
                parts = [rows[start : start + num_rows] for start in range(0, len(rows), num_rows)]
                hits = sum(_num_found(model, part, device) for part in parts)
                found[length, depth] = hits / len(rows)
    by_length = {length: [share for (own, _), share in found.items() if own == length] for length in lengths}
    return {
        "passkey": sum(found.values()) / len(found),
        **{f"passkey_{length}": sum(shares) / len(shares) for length, shares in by_length.items()},
        **{cell_name(length, depth): share for (length, depth), share in found.items()},
    }


def cell_name(length: int, depth: float) -> str:
    """What the figure of one length and depth is called."""
    return f"passkey_{length}@depth={depth:g}"


def _num_found(model: nn.Module, rows: Sequence[PasskeyRow], device: torch.device) -> int:
    batch = _batch(rows).to(device)
    scores = model(batch)
    return int((scores.correct_BL | ~batch.answers_BL).all(dim=1).sum())


def _batch(rows: Sequence[PasskeyRow]) -> Batch:
    """Rows of one length; only answers have a weight."""
    input_ids_BL = torch.tensor([row.token_ids for row in rows])
    answers_BL = torch.zeros_like(input_ids_BL, dtype=torch.bool)
    for number, row in enumerate(rows):
        answers_BL[number, -row.num_answer_tokens :] = True
    return Batch(
        input_ids_BL=input_ids_BL,
        position_ids_BL=torch.arange(input_ids_BL.shape[1]).expand_as(input_ids_BL).contiguous(),
        document_ids_BL=torch.ones_like(input_ids_BL),
        weights_BL=answers_BL.float(),
        answers_BL=answers_BL,
        packed=False,
        num_tokens=input_ids_BL.numel(),
        num_examples=len(rows),
        indices=tuple(range(len(rows))),
    )
