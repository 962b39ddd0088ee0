"""What a row format is: how it is recognised, and how a row becomes messages."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

from ftk.core.types import Message

Row = Mapping[str, Any]
ReadingT = TypeVar("ReadingT")


class FormatError(ValueError):
    """A row that does not read; the loader adds its place."""


class Reading(NamedTuple):
    """What a row says."""

    messages: list[Message]
    tools: list[dict[str, Any]]


@dataclass(frozen=True)
class Format(Generic[ReadingT]):
    """One way to write a conversation, or a comparison of answers, as a row."""

    name: str
    needs: tuple[str, ...]
    """Columns without which a row does not read."""
    read: Callable[[Row], ReadingT]
    """From a row to what it says; raises FormatError."""
    takes: tuple[str, ...] = ()
    """Columns that it also reads where they are there."""

    def matches(self, columns: Collection[str]) -> bool:
        """Whether rows with these columns may be of this format."""
        return set(self.needs) <= set(columns)


def user(content: Any) -> Message:
    """A message of the user."""
    return {"role": "user", "content": text(content, "the prompt")}


def assistant(content: Any) -> Message:
    """A message of the assistant."""
    return {"role": "assistant", "content": text(content, "the answer")}


def text(value: Any, what: str) -> str:
    """`value` as text.

    Raises:
        FormatError: it is neither text nor a number.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int | float):
        return str(value)
    kind = "missing" if value is None else type(value).__name__
    raise FormatError(f"{what} is {kind}, expected text")
