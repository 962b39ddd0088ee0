"""Sizes as people write them: 24GB, 24GiB, 80g; 13B for parameters; 32k for tokens; and words of a short list."""

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import TypeVar

from ftk.core.errors import RecipeError

_BYTES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_BINARY = {"k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
_GROUPED = r"\d{1,3}(?:,\d{3})+(?:\.\d+)?"
"""Digits by threes. A comma anywhere else may stand for a decimal point, and is not read."""
Value = TypeVar("Value")
_COUNTS = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "t": 10**12}


def parse_bytes(text: str, *, place: str) -> int:
    """Bytes: `24GB` and `24g` are 24e9, `24GiB` is 24 * 2**30.

    Raises:
        RecipeError: it does not read so, or is not positive.
    """
    found = re.fullmatch(r"\s*([\d_]*\.?\d+)\s*([kmgt]?)(i?)(b?)\s*", text, re.IGNORECASE)
    unit = found[2].lower() if found else ""
    if not found or (found[3] and not unit):
        raise RecipeError(f"{text!r} does not say a size. Expected such as 24GB, 24GiB or 80g", place=place)
    factor = _BINARY[unit] if found[3] else _BYTES[unit]
    return _positive(round(float(found[1].replace("_", "")) * factor), text, place=place)


def parse_count(text: str, *, place: str) -> int:
    """A number of parameters or tokens: `13B`, `350M`, `32k` (32,000), `7_000_000_000`.

    Raises:
        RecipeError: it does not read so, is not whole, or is not positive.
    """
    found = re.fullmatch(rf"\s*((?:{_GROUPED}|[\d_]*\.?\d+)(?:e\d{{1,2}})?)\s*([kmbt]?)\s*", text, re.IGNORECASE)
    if not found:
        raise RecipeError(f"{text!r} does not say a number. Expected such as 13B, 350M or 7000000000", place=place)
    number = Decimal(found[1].replace("_", "").replace(",", "")) * _COUNTS[found[2].lower()]
    if number != int(number):
        raise RecipeError(f"{text!r} is no whole number. Expected such as 13B, 350M or 7000000000", place=place)
    return _positive(int(number), text, place=place)


def one_of(word: str, known: Mapping[str, Value], *, place: str) -> Value:
    """What a word stands for, in any case of letters.

    Raises:
        RecipeError: it is none of the known ones; tells them.
    """
    found = known.get(word.lower())
    if found is None:
        raise RecipeError(f"{word!r} is not known. Expected one of {', '.join(known)}", place=place)
    return found


def shown(num_bytes: float) -> str:
    """Bytes for a person, in powers of ten as makers of GPUs and disks count: `31.2 GB`."""
    for unit, size in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if abs(num_bytes) >= size:
            value = num_bytes / size
            return (
                f"{value:.0f} {unit}"
                if value >= 1000
                else f"{value:.3g} {unit}"
                if value < 100
                else f"{value:.0f} {unit}"
            )
    return f"{num_bytes:.0f} B"


def _positive(number: int, text: str, *, place: str) -> int:
    if number <= 0:
        raise RecipeError(f"{text!r} is not above zero", place=place)
    return number
