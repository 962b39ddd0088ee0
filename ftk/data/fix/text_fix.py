"""What a fix of texts is."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple


class Text(NamedTuple):
    """A text within a row."""

    value: str
    begins: bool = True
    """Whether a message or a prompt begins here, so that blanks before it are none of its own."""
    ends: bool = True
    """Whether a message or an answer ends here."""


@dataclass(frozen=True)
class TextFix:
    """One way to mend a text."""

    name: str
    about: str
    fix: Callable[[Text], str]
    """The mended text; of a text that needs it not, the same."""
    when_asked: bool = False
    """It may change what a text means, so it is applied only by its name."""
