"""The part of an answer that is compared, where a metric does not look at all of it."""

import re
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from typing import Annotated

from pydantic import AfterValidator

from ftk.core.errors import DataError


def _compiles_with_a_group(pattern: str) -> str:
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from error
    if groups < 1:
        raise ValueError("the regular expression has no group; put parentheses around what is compared")
    return pattern


Pattern = Annotated[str, AfterValidator(_compiles_with_a_group)]


def extract(text: str, pattern: str | None) -> str | None:
    """Group 1 of the first place where `pattern` matches, None where it matches nowhere; without a pattern, `text`.

    For GSM8K's answers `#### (-?[0-9.,]+)` is that of the authors' own scoring.
    Source: Cobbe et al. 2021 (arXiv:2110.14168), `extract_answer` in their repository, grade-school-math.
    """
    if pattern is None:
        return text
    match = re.search(pattern, text)
    return match[1] if match else None


def extract_references(references: Sequence[str], pattern: str | None) -> list[str]:
    """What each reference is compared by.

    Raises:
        DataError: a reference does not match, so that no answer to its row could ever be right.
    """
    extracted = [extract(reference, pattern) for reference in references]
    for number, part in enumerate(extracted, start=1):
        if part is None:
            raise DataError(
                f"the reference answer of evaluation row {number} does not match the metric's `extract: {pattern}`, "
                f"so no answer to it could be right. It reads: {_shortened(references[number - 1])!r}"
            )
    return [part for part in extracted if part is not None]


def plain_number(text: str) -> str:
    """A number without its thousands separators, trailing zeros or final full stop; other text as it is.

    `1,200`, `1200.` and `1200.00` are all `1200`.
    """
    candidate = re.sub(r"(?<=\d),(?=\d{3}(\D|$))", "", text.strip()).removesuffix(".")
    try:
        number = Decimal(candidate)
    except InvalidOperation:
        return text
    return f"{number.normalize() + 0:f}" if number.is_finite() else text


def _shortened(text: str) -> str:
    return text if len(text) <= 120 else f"{text[:80]}…{text[-40:]}"
