"""From rows to the examples that are trained on, checked, cut to length and cached."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from ftk.core.errors import DataError
from ftk.core.types import Comparison, Conversation, Examples
from ftk.data.assemble import assemble, prompt_share, source_weights
from ftk.data.cache import cache_key, load_examples, save_examples
from ftk.data.checks import place_of
from ftk.data.render import Rendered, Renderer
from ftk.data.rows import Rows, Taken, fingerprint_of
from ftk.data.settings import DataSettings
from ftk.data.train_on import TrainOn
from ftk.data.truncate import Truncation, cut, loses_end

ROWS_AT_ONCE = 1000
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
    source_weights: tuple[float, ...] | None = None
    """For `TrainBatches`: weight of each of the examples' `source_names`; None where no source has one."""
    kind: Literal["conversations", "pairs", "unpaired"] = "conversations"
    """What each row is."""
    num_desirable: int | None = None
    """Rows whose completion is a good one; None where rows are not completions by themselves."""
    cached: bool = False
    """Whether the rows were found in the cache."""

    def lines(self) -> list[str]:
        """What a person should know, a line each."""
        lines = [str(taken) for taken in self.taken]
        lines.append(f"{self._counts()}{' (from the cache)' if self.cached else ''}")
        if self.num_truncated:
            did = "dropped" if self.truncation == "drop" else f"cut at the {self.truncation}"
            lines.append(
                f"{self.num_truncated:,} of {self.num_rows:,} rows are longer than max_length {self.max_length:,} "
                f"tokens (the longest has {self.longest:,}): {did}"
            )
        if self.num_dropped and self.truncation != "drop":
            left = "no answer" if self.kind == "conversations" else "too little of an answer"
            lines.append(f"{self.num_dropped:,} rows had {left} left after the cut: dropped")
        if self.num_without_end:
            lines.append(f"{self.num_without_end:,} rows lost their end of turn to the cut: they do not teach to stop")
        return lines

    def _counts(self) -> str:
        tokens = f"{self.num_tokens:,} tokens"
        answers = f"of which {self.num_answer_tokens:,} answers"
        if self.kind == "pairs":
            return f"{self.num_examples:,} pairs, {tokens} with each prompt once, {answers}"
        if self.num_desirable is not None:
            bad = self.num_examples - self.num_desirable
            return f"{self.num_examples:,} completions ({self.num_desirable:,} good, {bad:,} bad), {tokens}, {answers}"
        share = f"{self.prompt_weight_share:.1%} of the loss weight lies on prompts"
        return f"{self.num_examples:,} rows, {tokens}, {answers}; {share}"


def prepare(
    conversations: Sequence[Conversation],
    renderer: Renderer,
    *,
    settings: DataSettings,
    max_length: int,
    prompt_loss_weight: float,
    train_on: TrainOn,
    reasoning_weight: float = 1.0,
    cache_folder: Path | None,
) -> tuple[Examples, PreparationReport]:
    """Render, check and cut every conversation, or find that in the cache.

    Raises:
        DataError: a row does not read, fails a check, or is too long under `truncation: error`; or none is left.
    """

    def rendered() -> Iterator[Rendered]:
        for start in range(0, len(conversations), ROWS_AT_ONCE):
            some = conversations[start : start + ROWS_AT_ONCE]
            yield from renderer.render_many(
                some, prompt_loss_weight=prompt_loss_weight, train_on=train_on, reasoning_weight=reasoning_weight
            )

    return prepare_rows(
        conversations,
        renderer,
        rendered(),
        settings=settings,
        max_length=max_length,
        cache_folder=cache_folder,
        prompt_loss_weight=prompt_loss_weight,
        train_on=train_on,
        reasoning_weight=reasoning_weight,
    )


def prepare_rows(
    rows: Sequence[Conversation] | Sequence[Comparison],
    renderer: Renderer,
    rendered: Iterable[Rendered],
    *,
    settings: DataSettings,
    max_length: int,
    cache_folder: Path | None,
    **how: str | float,
) -> tuple[Examples, PreparationReport]:
    """Check and cut what `rendered` gives for each of `rows`, or find that in the cache without asking for any.

    `how` is what else the rendering depends on, for the cache.

    Raises:
        DataError: a row is too long under `truncation: error`, or none is left; and what `rendered` raises.
    """
    key = None
    if cache_folder is not None:
        key = cache_key(
            tokenizer=renderer.tokenizer,
            template=renderer.template.key,
            rows=fingerprint_of(rows),
            truncation=settings.truncation,
            max_length=max_length,
            **how,
        )
        saved = load_examples(cache_folder, key)
        if saved is not None:
            return saved[0], replace(
                _from_facts(saved[1]), source_weights=source_weights(rows, saved[1]["origins"], saved[0])
            )
    examples, report, origins = _prepare(
        rows, rendered, truncation=settings.truncation, max_length=max_length, bos_token_id=renderer.bos_token_id
    )
    if cache_folder is not None and key is not None:
        save_examples(cache_folder, key, examples, {"report": asdict(report), "origins": origins})
    return examples, replace(report, source_weights=source_weights(rows, origins, examples))


def role_of(rows: Sequence[Conversation] | Sequence[Comparison]) -> str | None:
    """What the rows are for, such as `data.train`, where that is known."""
    return rows.role if isinstance(rows, Rows) else None


def _prepare(
    rows: Sequence[Conversation] | Sequence[Comparison],
    rendered: Iterable[Rendered],
    *,
    truncation: Truncation,
    max_length: int,
    bos_token_id: int | None,
) -> tuple[Examples, PreparationReport, list[int]]:
    left: list[Rendered] = []
    kept: list[int] = []
    lengths: list[int] = []
    num_without_end = 0
    for number, row in enumerate(rendered):
        lengths.append(row.length)
        short = cut(row, truncation=truncation, max_length=max_length, bos_token_id=bos_token_id)
        if short is None:
            continue
        kept.append(number)
        left.append(short)
        num_without_end += truncation == "right" and loses_end(row, max_length=max_length)
    too_long = [number for number, length in enumerate(lengths) if length > max_length]
    if truncation == "error" and too_long:
        raise _too_long(rows, lengths, too_long, max_length=max_length)
    if not left:
        raise DataError(
            f"no row is left of {len(rows)}: raise data.max_length, now {max_length} tokens", place=role_of(rows)
        )
    examples, origins = assemble(left, kept, rows)
    # What statistics alone look at is not counted.
    counted = slice(None) if examples.branches is None else examples.branches >= 0
    desirable = examples.columns.get("desirable")
    report = PreparationReport(
        num_rows=len(rows),
        num_examples=len(examples),
        num_truncated=len(too_long),
        num_dropped=len(rows) - len(examples),
        num_without_end=num_without_end,
        num_tokens=len(examples.token_ids[counted]),
        num_answer_tokens=int(examples.answers[counted].sum()),
        prompt_weight_share=prompt_share(examples),
        longest=max(lengths),
        max_length=max_length,
        truncation=truncation,
        taken=rows.taken if isinstance(rows, Rows) else (),
        kind="conversations" if examples.branches is None else "pairs" if desirable is None else "unpaired",
        num_desirable=None if desirable is None else int(desirable.sum()),
    )
    return examples, report, origins


def _too_long(
    rows: Sequence[Conversation] | Sequence[Comparison],
    lengths: Sequence[int],
    too_long: Sequence[int],
    *,
    max_length: int,
) -> DataError:
    worst = max(too_long, key=lengths.__getitem__)
    what = "the row" if isinstance(rows[worst], Conversation) else "the prompt with its longest completion"
    return DataError(
        f"{what} has {lengths[worst]:,} tokens, more than max_length {max_length:,}, as have {len(too_long):,} of "
        f"{len(lengths):,} rows. Raise data.max_length, or say in data.truncation what happens to them: right, left or "
        "drop",
        place=place_of(rows[worst]),
    )


def _from_facts(facts: Mapping[str, Any]) -> PreparationReport:
    report = facts["report"]
    taken = tuple(Taken(**one) for one in report["taken"])
    return PreparationReport(**{**report, "taken": taken, "source_weights": None, "cached": True})
