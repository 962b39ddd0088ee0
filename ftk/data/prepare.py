"""From conversations to the examples that are trained on, checked, cut to length and cached."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ftk.core.errors import DataError
from ftk.core.types import Conversation, Examples
from ftk.data.cache import cache_key, load_examples, save_examples
from ftk.data.checks import place_of
from ftk.data.load import Conversations, Taken, fingerprint_of
from ftk.data.render import Rendered, Renderer
from ftk.data.settings import DataSettings
from ftk.data.truncate import truncate_left, truncate_right

Truncation = Literal["right", "left", "drop", "error"]
_ROWS_AT_ONCE = 1000
"""Rows rendered at a time: enough to keep the tokenizer's threads busy, few enough for its offsets to fit."""


@dataclass(frozen=True)
class PreparationReport:
    """What became of the rows."""

    num_rows: int
    """Rows read."""
    num_examples: int
    """Rows that are left."""
    num_truncated: int
    """Rows longer than `max_length`, whether cut or dropped."""
    num_dropped: int
    """Rows dropped: too long under `truncation: drop`, or with no token of an answer left after the cut."""
    num_without_end: int
    """Rows whose last answer lost its end of turn to the cut, so that they do not teach to stop."""
    num_tokens: int
    num_answer_tokens: int
    prompt_weight_share: float
    """Share of the total loss weight that lies on prompts, 0 to 1."""
    longest: int
    """Tokens of the longest row, before any cut."""
    max_length: int
    truncation: Truncation
    taken: tuple[Taken, ...]
    """Which format was taken for each source; empty where conversations came without sources."""
    source_weights: tuple[float, ...] | None
    """For `TrainBatches`: weight of each of the examples' `source_names`; None where no source has one."""
    cached: bool = False
    """Whether the rows were found in the cache."""

    def lines(self) -> list[str]:
        """What a person should know, a line each."""
        lines = [str(taken) for taken in self.taken]
        lines.append(
            f"{self.num_examples:,} rows, {self.num_tokens:,} tokens, of which {self.num_answer_tokens:,} answers; "
            f"{self.prompt_weight_share:.1%} of the loss weight lies on prompts"
            + (" (from the cache)" if self.cached else "")
        )
        if self.num_truncated:
            did = "dropped" if self.truncation == "drop" else f"cut at the {self.truncation}"
            lines.append(
                f"{self.num_truncated:,} of {self.num_rows:,} rows are longer than max_length {self.max_length:,} "
                f"tokens (the longest has {self.longest:,}): {did}"
            )
        if self.num_dropped and self.truncation != "drop":
            lines.append(f"{self.num_dropped:,} rows had no answer left after the cut: dropped")
        if self.num_without_end:
            lines.append(f"{self.num_without_end:,} rows lost their end of turn to the cut: they do not teach to stop")
        return lines


def prepare(
    conversations: Sequence[Conversation],
    renderer: Renderer,
    *,
    settings: DataSettings,
    max_length: int,
    prompt_loss_weight: float,
    train_on: Literal["all", "last"],
    cache_folder: Path | None,
) -> tuple[Examples, PreparationReport]:
    """Render, check and cut every row, or find that in the cache.

    Raises:
        DataError: a row does not read, fails a check, or is too long under `truncation: error`; or none is left.
    """
    key = None
    if cache_folder is not None:
        key = cache_key(
            tokenizer=renderer.tokenizer,
            template=renderer.template.text,
            rows=fingerprint_of(conversations),
            truncation=settings.truncation,
            max_length=max_length,
            prompt_loss_weight=prompt_loss_weight,
            train_on=train_on,
        )
        saved = load_examples(cache_folder, key)
        if saved is not None:
            return saved[0], _weigh_sources(_from_facts(saved[1]), conversations, saved[1]["origins"], saved[0])
    examples, report, origins = _prepare(
        conversations,
        renderer,
        truncation=settings.truncation,
        max_length=max_length,
        prompt_loss_weight=prompt_loss_weight,
        train_on=train_on,
    )
    if cache_folder is not None and key is not None:
        save_examples(cache_folder, key, examples, {"report": asdict(report), "origins": origins})
    return examples, _weigh_sources(report, conversations, origins, examples)


def _prepare(
    conversations: Sequence[Conversation],
    renderer: Renderer,
    *,
    truncation: Truncation,
    max_length: int,
    prompt_loss_weight: float,
    train_on: Literal["all", "last"],
) -> tuple[Examples, PreparationReport, list[int]]:
    rows: list[Rendered] = []
    kept: list[int] = []
    lengths: list[int] = []
    num_without_end = 0
    for start in range(0, len(conversations), _ROWS_AT_ONCE):
        some = conversations[start : start + _ROWS_AT_ONCE]
        rendered = renderer.render_many(some, prompt_loss_weight=prompt_loss_weight, train_on=train_on)
        for number, row in enumerate(rendered, start=start):
            lengths.append(len(row.token_ids_L))
            cut = _cut(row, truncation=truncation, max_length=max_length, bos_token_id=renderer.bos_token_id)
            if cut is None:
                continue
            kept.append(number)
            rows.append(cut)
            num_without_end += truncation == "right" and _lost_end(row, max_length=max_length)
    too_long = [number for number, length in enumerate(lengths) if length > max_length]
    if truncation == "error" and too_long:
        raise _too_long(conversations, lengths, too_long, max_length=max_length)
    if not rows:
        role = conversations.role if isinstance(conversations, Conversations) else None
        raise DataError(
            f"no row is left of {len(conversations)}: raise data.max_length, now {max_length} tokens", place=role
        )
    examples, origins = _examples(rows, kept, conversations)
    report = PreparationReport(
        num_rows=len(conversations),
        num_examples=len(examples),
        num_truncated=len(too_long),
        num_dropped=len(conversations) - len(examples),
        num_without_end=num_without_end,
        num_tokens=len(examples.token_ids),
        num_answer_tokens=int(examples.answers.sum()),
        prompt_weight_share=_prompt_share(examples),
        longest=max(lengths),
        max_length=max_length,
        truncation=truncation,
        taken=conversations.taken if isinstance(conversations, Conversations) else (),
        source_weights=None,
    )
    return examples, report, origins


def _cut(row: Rendered, *, truncation: Truncation, max_length: int, bos_token_id: int | None) -> Rendered | None:
    """The row at its length; None where no learned token of an answer is left."""
    if len(row.token_ids_L) <= max_length or truncation == "error":
        return row
    if truncation == "drop":
        return None
    if truncation == "right":
        row = truncate_right(row, max_length=max_length)
    else:
        row = truncate_left(row, max_length=max_length, bos_token_id=bos_token_id)
    return row if row.answers_L.any() else None


def _lost_end(row: Rendered, *, max_length: int) -> bool:
    # The end-of-turn token is the last one of an answer: it is lost where the cut goes through an answer.
    return len(row.answers_L) > max_length and bool(row.answers_L[max_length - 1] and row.answers_L[max_length])


def _too_long(
    conversations: Sequence[Conversation], lengths: Sequence[int], too_long: Sequence[int], *, max_length: int
) -> DataError:
    worst = max(too_long, key=lengths.__getitem__)
    return DataError(
        f"the row has {lengths[worst]:,} tokens, more than max_length {max_length:,}, as have {len(too_long):,} of "
        f"{len(lengths):,} rows. Raise data.max_length, or say in data.truncation what happens to them: right, left or "
        "drop",
        place=place_of(conversations[worst]),
    )


def _examples(
    rows: Sequence[Rendered], kept: Sequence[int], conversations: Sequence[Conversation]
) -> tuple[Examples, list[int]]:
    """The examples, and for each of their `source_names` the source of the recipe it belongs to."""
    numbers = conversations.source_numbers if isinstance(conversations, Conversations) else [0] * len(conversations)
    places: dict[tuple[int, str], int] = {}
    sources = [places.setdefault((numbers[n], conversations[n].source), len(places)) for n in kept]
    examples = Examples(
        token_ids=np.concatenate([row.token_ids_L for row in rows]),
        weights=np.concatenate([row.weights_L for row in rows]),
        answers=np.concatenate([row.answers_L for row in rows]),
        offsets=np.cumsum([0, *(len(row.token_ids_L) for row in rows)], dtype=np.int64),
        rows_N=np.array([conversations[n].row for n in kept], np.int64),
        sources_N=np.array(sources, np.int32),
        source_names=tuple(name for _, name in places),
    )
    return examples, [number for number, _ in places]


def _prompt_share(examples: Examples) -> float:
    on_answers = float(examples.weights.sum(where=examples.answers, dtype=np.float64))
    return 1 - on_answers / float(examples.weights.sum(dtype=np.float64))


def _weigh_sources(
    report: PreparationReport, conversations: Sequence[Conversation], origins: Sequence[int], examples: Examples
) -> PreparationReport:
    """A folder's weight is shared by its files according to their rows."""
    weights = conversations.weights if isinstance(conversations, Conversations) else None
    if weights is None:
        return report
    rows = np.bincount(examples.sources_N, minlength=len(origins))
    totals = np.bincount(origins, weights=rows, minlength=len(weights))
    shares = tuple(weights[origin] * int(rows[place]) / totals[origin] for place, origin in enumerate(origins))
    return replace(report, source_weights=shares)


def _from_facts(facts: Mapping[str, Any]) -> PreparationReport:
    report = facts["report"]
    taken = tuple(Taken(**one) for one in report["taken"])
    return PreparationReport(**{**report, "taken": taken, "source_weights": None, "cached": True})
