"""Questions with retrieved documents: right ones, and wrong ones mixed in by a seed.

A model that always finds the right document alone in its prompt never learns to pass over the wrong ones that retrieval
brings with it, and one that always finds it never learns to do without. Source: Zhang et al. 2024 (arXiv:2403.10131),
section 3, from which this takes the distractors beside the right document and the share of rows without it.
"""

import random
from collections.abc import Sequence
from typing import Annotated

from pydantic import Field, field_validator

from ftk.core.config import Section

CONTEXT, QUESTION = "{context}", "{question}"
DEFAULT_LAYOUT = f"{CONTEXT}\n\n{QUESTION}"
DEFAULT_SEPARATOR = "\n\n"


class Retrieval(Section):
    """How rows of format `context_question_answer` become prompts."""

    distractors: Annotated[int, Field(ge=0)] | None = None
    """Wrong documents beside the right ones: the row's own `distractors` first, then drawn from other rows' contexts.

    By default all of the row's own, and none drawn."""
    rate: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Share of the rows that get distractors; the others show their right documents alone."""
    leave_out: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the training rows whose right documents are left out, so that the answer must come from the weights.

    RAFT (arXiv:2403.10131) found 0 to 0.6 best, by the data set; 0.2 is customary. Held-out rows always show them."""
    layout: str = DEFAULT_LAYOUT
    """The user's message, with `{context}` and `{question}` once each; without documents it is the question alone."""
    separator: str = DEFAULT_SEPARATOR
    """What stands between two documents."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Of the draws and the order of documents; apart from the recipe's, so that runs of other seeds read the same."""

    @field_validator("layout")
    @classmethod
    def _has_both(cls, value: str) -> str:
        if value.count(CONTEXT) != 1 or value.count(QUESTION) != 1:
            raise ValueError(f"expected a text with {CONTEXT} and {QUESTION}, once each")
        return value

    @property
    def held_out(self) -> "Retrieval":
        """The same for rows that are measured on, which always show the right documents."""
        return self.model_copy(update={"leave_out": 0.0})

    @property
    def compared(self) -> "Retrieval":
        """The same for rows that are compared with each other, which show their own documents, right and wrong.

        Documents drawn from other rows would be another difference between them.
        """
        return self.model_copy(update={"leave_out": 0.0, "distractors": None, "rate": 1.0})


DEFAULT_RETRIEVAL = Retrieval()
"""Every row shows its own documents, right and wrong, in an order of the seed."""


def laid_out(
    documents: Sequence[str], question: str, *, layout: str = DEFAULT_LAYOUT, separator: str = DEFAULT_SEPARATOR
) -> str:
    """The user's message; the question alone where there are no documents."""
    if not documents:
        return question
    before, after = layout.split(CONTEXT)
    parts = (before, separator.join(documents), after)
    # The question goes in where the layout has it, whatever a document spells out.
    return "".join(part if place == 1 else part.replace(QUESTION, question) for place, part in enumerate(parts))


def mixed(
    context: Sequence[str],
    distractors: Sequence[str],
    pool: Sequence[str],
    *,
    settings: Retrieval,
    key: str,
) -> list[str]:
    """The documents that a row shows, right and wrong ones in an order drawn by the seed and the row's `key`.

    Args:
        context: the right documents.
        distractors: wrong ones that come with the row.
        pool: documents without repetition from which more are drawn; may hold the row's own.

    Raises:
        ValueError: the pool has too few others.
    """
    draw = random.Random(f"{settings.seed}\0{key}")
    # Both are always drawn, so that changing the one rate does not change the other's rows.
    gets_wrong, shows_right = draw.random() < settings.rate, draw.random() >= settings.leave_out
    wrong: list[str] = []
    if gets_wrong:
        wrong = _wrong(context, distractors, pool, count=settings.distractors, draw=draw)
    documents = [*(context if shows_right else ()), *wrong]
    draw.shuffle(documents)
    return documents


def _wrong(
    context: Sequence[str], own: Sequence[str], pool: Sequence[str], *, count: int | None, draw: random.Random
) -> list[str]:
    if count is None or count == len(own):
        return list(own)
    if count < len(own):
        return draw.sample(own, count)
    known = {*context, *own}
    missing = count - len(own)
    # So many hold enough others, however many of them are the row's own.
    drawn = draw.sample(range(len(pool)), min(len(pool), missing + len(known)))
    others = [pool[place] for place in drawn if pool[place] not in known][:missing]
    if len(others) < missing:
        raise ValueError(
            f"{count} distractors are asked for, and there are {len(own) + len(others)}: the row's own and the "
            "contexts of other rows. Lower data.retrieval.distractors, or add rows"
        )
    return [*own, *others]
