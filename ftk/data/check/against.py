"""How training rows differ from a sample of real use: lengths, shapes, kinds of prompts, words.

Shapes: N rows, T traits.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ftk.data.check.finding import Remark, Remarked
from ftk.data.check.imbalance import answer_type
from ftk.data.check.row import CheckedRow
from ftk.data.check.words import split_words

MOST_ROWS = 20_000
"""Rows of the sample that are looked at."""
_LENGTH_RATIO = 2.0
"""Of the medians, from which lengths differ."""
_SHAPE_GAP = 0.3
"""Difference of shares from which shapes differ."""
_LEAST_SHARE = 0.02
"""Of the sample, below which a kind of prompt is a rarity."""
_MISSING_RATIO = 10
"""Of the share in the sample to that in the training set, from which a kind is missing there."""
_FEWEST_UNSEEN = 2
"""Rows of the sample in which a word must stand."""
_WORDS_NAMED = 10
_OPENING_BYTES = 16
_CODE = re.compile(r"```|\b(?:def|class|import|return|function|SELECT|#include)\b.*[(;:{]")
_FOREIGN = re.compile(r"[^\W\d_a-zA-Z\u00c0-\u024f]")

SHAPES: dict[str, Callable[[CheckedRow], bool]] = {
    "a system message": lambda row: any(turn.role == "system" for turn in row.turns),
    "several questions": lambda row: sum(turn.role == "user" for turn in row.turns) > 1,
    "tools": lambda row: bool(row.tools) or any(turn.role == "tool" for turn in row.turns),
}
"""How a conversation is built up, whatever it says."""
KINDS: dict[str, Callable[[CheckedRow], bool]] = {
    "prompts with a question mark": lambda row: "?" in row.prompt or "？" in row.prompt,
    "prompts of several lines": lambda row: "\n" in row.prompt.strip(),
    "prompts with code": lambda row: _CODE.search(row.prompt) is not None,
    "prompts with JSON": lambda row: '":' in row.prompt and "{" in row.prompt,
    "prompts with a link": lambda row: "http://" in row.prompt or "https://" in row.prompt,
    "prompts with numbers": lambda row: any(one in row.prompt for one in "0123456789"),
    "prompts in another script": lambda row: not row.prompt.isascii() and _FOREIGN.search(row.prompt) is not None,
}
"""What a prompt may hold."""


@dataclass(frozen=True)
class Profile:
    """Keeps of each row what it is compared by with real use."""

    name: str = "profile"
    words: tuple[str, ...] = ()
    """Words that are looked for."""

    @property
    def dtype(self) -> np.dtype[np.void]:
        num_traits = len(SHAPES) + len(KINDS)
        return np.dtype(
            [
                ("prompt", np.int64),
                ("answer", np.int64),
                ("traits", np.bool_, (num_traits,)),
                ("type", "S16"),
                ("opening", f"S{_OPENING_BYTES}"),
                ("words", np.uint8, (-(-len(self.words) // 8),)),
            ]
        )

    def measure(self, rows: Sequence[CheckedRow]) -> NDArray[np.void]:
        tests = [*SHAPES.values(), *KINDS.values()]
        wanted = {word: place for place, word in enumerate(self.words)}
        measured_N = np.zeros(len(rows), self.dtype)
        found = np.zeros((len(rows), len(wanted)), np.bool_)
        for number, row in enumerate(rows):
            words = split_words(row.prompt)
            found[number, [wanted[word] for word in wanted.keys() & set(words)]] = True
            opening = words[0].encode()[:_OPENING_BYTES] if words else b""
            kind = answer_type(row.answer).encode() if row.answer.strip() else b""
            traits = [test(row) for test in tests]
            measured_N[["prompt", "answer", "traits", "type", "opening"]][number] = (
                len(row.prompt), len(row.answer), traits, kind, opening
            )  # fmt: skip
        measured_N["words"] = np.packbits(found, axis=1)
        return measured_N

    def judge(self, measured_N: NDArray[Any], places: object) -> Iterator[Remarked]:
        """What differs is told by `differences`, of the rows of the sample."""
        return iter(())


def frequent_words(rows: Sequence[CheckedRow], *, most: int = 2000) -> tuple[str, ...]:
    """Words of at least three letters that stand in the prompts of several rows, the most frequent first."""
    counts: Counter[str] = Counter()
    for row in rows:
        counts.update({word for word in split_words(row.prompt) if len(word) > 2 and not word.isdigit()})
    ordered = sorted(counts.items(), key=lambda one: (-one[1], one[0]))
    return tuple(word for word, count in ordered[:most] if count >= _FEWEST_UNSEEN)


def differences(train_N: NDArray[Any], real_N: NDArray[Any], *, words: Sequence[str]) -> Iterator[Remarked]:
    """Remarks on rows of the sample of real use, that are unlike the training rows."""
    yield from _lengths(train_N, real_N, side="prompt")
    if (real_N["answer"] > 0).mean() > 0.5:
        yield from _lengths(train_N, real_N, side="answer")
    yield from _shapes(train_N, real_N)
    yield from _missing(train_N, real_N)
    yield from _words(train_N, real_N, words)


def _lengths(train_N: NDArray[Any], real_N: NDArray[Any], *, side: str) -> Iterator[Remarked]:
    train, real = (one[side][one[side] > 0] for one in (train_N, real_N))
    if not len(train) or not len(real):
        return
    usual, asked = float(np.median(train)), float(np.median(real))
    if max(usual, asked) / min(usual, asked) >= _LENGTH_RATIO:
        message = (
            f"{side}s have {asked:,.0f} characters in real use and {usual:,.0f} in training (medians); these rows are "
            f"{'longer' if asked > usual else 'shorter'} than nine in ten of the training rows"
        )
        low, high = np.percentile(train, [10, 90])
        beyond = real_N[side] > high if asked > usual else (real_N[side] < low) & (real_N[side] > 0)
        yield from _on_rows(beyond, Remark("against_length", "warning", message))
        return
    longest = int(train.max())
    message = f"the {side} is longer than every one in training, the longest of which has {longest:,} characters"
    yield from _on_rows(real_N[side] > longest, Remark("against_length", "info", message))


def _shapes(train_N: NDArray[Any], real_N: NDArray[Any]) -> Iterator[Remarked]:
    for place, name in enumerate(SHAPES):
        has_N = real_N["traits"][:, place]
        train, real = float(train_N["traits"][:, place].mean()), float(has_N.mean())
        if abs(train - real) >= _SHAPE_GAP:
            message = f"{real:.0%} of the rows in real use have {name}, and {train:.0%} in training"
            yield from _on_rows(has_N if real > train else ~has_N, Remark("against_format", "warning", message))


def _missing(train_N: NDArray[Any], real_N: NDArray[Any]) -> Iterator[Remarked]:
    for place, name in enumerate(KINDS, start=len(SHAPES)):
        train = float(train_N["traits"][:, place].mean())
        yield from _if_missing(train, real_N["traits"][:, place], name)
    for opening in np.unique(real_N["opening"][real_N["opening"] != b""]):
        named = f"prompts that begin with {opening.decode('utf-8', 'replace')!r}"
        yield from _if_missing(float((train_N["opening"] == opening).mean()), real_N["opening"] == opening, named)
    for kind in np.unique(real_N["type"][real_N["type"] != b""]):
        named = f"answers of the type {kind.decode()!r}"
        yield from _if_missing(float((train_N["type"] == kind).mean()), real_N["type"] == kind, named)


def _if_missing(train_share: float, has_N: NDArray[np.bool_], name: str) -> Iterator[Remarked]:
    share = float(has_N.mean())
    if share >= _LEAST_SHARE and has_N.sum() >= _FEWEST_UNSEEN and train_share * _MISSING_RATIO < share:
        message = f"{name} are {share:.0%} of real use and {train_share:.1%} of training"
        yield from _on_rows(has_N, Remark("against_missing", "warning", message))


def _words(train_N: NDArray[Any], real_N: NDArray[Any], words: Sequence[str]) -> Iterator[Remarked]:
    if not words:
        return
    is_seen = np.unpackbits(np.bitwise_or.reduce(train_N["words"], axis=0), count=len(words)).astype(np.bool_)
    has_N = np.unpackbits(real_N["words"], axis=1, count=len(words)).astype(np.bool_) & ~is_seen
    counts = has_N.sum(axis=0)
    unseen = np.flatnonzero(counts)
    if not len(unseen):
        return
    named = ", ".join(f"{words[place]} ({counts[place]:,})" for place in unseen[:_WORDS_NAMED])
    more = f" and {len(unseen) - _WORDS_NAMED:,} more" if len(unseen) > _WORDS_NAMED else ""
    message = f"words that repeat in real use stand in no training prompt: {named}{more}"
    yield from _on_rows(np.asarray(has_N.any(axis=1)), Remark("against_vocabulary", "warning", message))


def _on_rows(is_meant_N: NDArray[np.bool_], remark: Remark) -> Iterator[Remarked]:
    return (Remarked(int(index), remark) for index in np.flatnonzero(is_meant_N))
