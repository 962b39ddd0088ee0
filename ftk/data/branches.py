"""From comparisons to rows in which completions share their prompt.

Shapes: L positions of a row.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ftk.core.errors import DataError
from ftk.core.types import Comparison, Conversation
from ftk.data.checks import place_of
from ftk.data.collate import ASIDE
from ftk.data.comparisons import prompt_key
from ftk.data.render import Completed, Rendered, Renderer


def render_branches(
    renderer: Renderer, comparisons: Sequence[Comparison], asides: Sequence[Comparison] | None = None
) -> list[Rendered]:
    """Prompt and completions of each comparison: the trunk, then one branch after the other.

    Each completion is rendered and tokenized in its whole conversation, as for supervised finetuning, and the trunk is
    what all of them begin with: it ends before the first token that reaches into a completion, and where a token
    reaches over that border in one of them and not in another, before the first that differs. So trunk and branch
    together are the tokens of the whole conversation, whatever the template and the tokenizer do.

    `asides` gives for each comparison another one, whose first completion follows this prompt as branch -1.

    Raises:
        DataError: a conversation does not render (see `Renderer.render_many`), or both sides come out equal.
    """
    wholes = [_conversation(one, completion) for one in comparisons for completion in one.completions]
    starts = [len(one.prompt) for one in comparisons for _ in one.completions]
    rendered = iter(renderer.render_completions(wholes, starts))
    sides = [[next(rendered) for _ in one.completions] for one in comparisons]
    if asides is not None:
        for side, aside in zip(sides, _render_asides(renderer, comparisons, asides), strict=True):
            side.append(aside)
    return [_joined(side, one) for side, one in zip(sides, comparisons, strict=True)]


def mismatched(comparisons: Sequence[Comparison], *, role: str | None = None) -> list[int]:
    """For each comparison the number of the next one with another prompt and the same worth, after the last the first.

    Its completion does not belong to the prompt, which is what KTO measures its baseline on. It is fixed by the data
    alone, so that no batch changes it, and with the worth kept, good and bad completions take part as often as the data
    has them. Where all of one worth have one prompt, the next with another prompt is taken, whatever its worth.

    Source: Ethayarajh et al. 2024 (arXiv:2402.01306), section 4.1.

    Raises:
        DataError: all have one prompt.
    """
    keys = [prompt_key(one) for one in comparisons]
    found = _following(keys, range(len(keys)))
    if not found:
        raise DataError(
            f"all {len(keys)} rows have one prompt. KTO compares each prompt with an answer to another one: give rows "
            "of at least two prompts",
            place=role,
        )
    for worth in (True, False):
        found |= _following(keys, [number for number, one in enumerate(comparisons) if one.desirable is worth])
    return [found[number] for number in range(len(keys))]


def _following(keys: Sequence[str], members: Sequence[int]) -> dict[int, int]:
    """For each of `members` the next one, round the end, with another key; nothing where they have one key."""
    found: dict[int, int] = {}
    after = members[0] if members else 0
    for number in [*reversed(members), *reversed(members)]:  # the second time round, what lies beyond the end is known
        if keys[after] != keys[number]:
            found[number] = after
        elif after in found:
            found[number] = found[after]
        after = number
    return found


def _render_asides(
    renderer: Renderer, comparisons: Sequence[Comparison], asides: Sequence[Comparison]
) -> list[Completed]:
    wholes = [_conversation(one, aside.completions[0]) for one, aside in zip(comparisons, asides, strict=True)]
    starts = [len(one.prompt) for one in comparisons]
    try:
        return renderer.render_completions(wholes, starts)
    except DataError as error:
        raise DataError(
            f"its prompt with the answer of the next row of another prompt, as KTO's baseline needs it, does not "
            f"render: {error.message}",
            place=error.place,
        ) from error


def _conversation(comparison: Comparison, completion: Sequence[dict[str, object]]) -> Conversation:
    return Conversation(
        (*comparison.prompt, *completion), comparison.row, comparison.source, comparison.columns, comparison.tools
    )


def _joined(sides: Sequence[Completed], comparison: Comparison) -> Rendered:
    place = place_of(comparison)
    first = sides[0].rendered.token_ids_L
    trunk = min(side.num_prompt for side in sides)
    for side in sides[1:]:
        trunk = min(trunk, _num_common(first, side.rendered.token_ids_L))
    if trunk == 0:
        raise DataError("the row has no token of a prompt before its answers", place=place)
    if len(comparison.completions) > 1 and np.array_equal(first, sides[1].rendered.token_ids_L):
        raise DataError(
            "chosen and rejected are equal once rendered, so there is nothing to prefer. Take the row out, or correct "
            "it",
            place=place,
        )
    numbers = [*range(1, len(comparison.completions) + 1), ASIDE][: len(sides)]
    lengths = [len(side.rendered.token_ids_L) - trunk for side in sides]
    # The first side whole, and of the others what follows the trunk.
    parts = [(side.rendered, slice(trunk * bool(number), None)) for number, side in enumerate(sides)]
    return Rendered(
        token_ids_L=np.concatenate([row.token_ids_L[part] for row, part in parts]),
        weights_L=np.concatenate([row.weights_L[part] for row, part in parts]),
        answers_L=np.concatenate([row.answers_L[part] for row, part in parts]),
        branches_L=np.repeat(np.array([0, *numbers], np.int8), [trunk, *lengths]),
    )


def _num_common(one: NDArray[np.int32], other: NDArray[np.int32]) -> int:
    size = min(len(one), len(other))
    differs = one[:size] != other[:size]
    return int(np.argmax(differs)) if differs.any() else size
