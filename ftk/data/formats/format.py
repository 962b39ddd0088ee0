"""What a row format is: how it is recognised, how a row becomes messages, and how messages become a row."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Literal, NamedTuple, TypeVar

from ftk.core.types import Message

Row = Mapping[str, Any]
ReadingT = TypeVar("ReadingT")


class FormatError(ValueError):
    """A row that does not read, or a conversation that cannot be written; the caller adds its place."""


class Reading(NamedTuple):
    """What a row says."""

    messages: list[Message]
    tools: list[dict[str, Any]]


@dataclass(frozen=True)
class Writer:
    """How a conversation becomes a row, and what such a row can say beyond one question and its answer."""

    write: Callable[[Reading], dict[str, Any]]
    """Takes what the fields below allow; raises FormatError. What a row cannot say beside, such as marks of what is not
    learned or names of speakers, it leaves out."""
    system: Literal["none", "first", "anywhere"]
    """Where system messages may stand."""
    turns: Literal["one", "pairs", "last", "all"]
    """One question and its answer; several in turn, which are learned; earlier turns too, which are shown and not
    learned; or any turns."""
    tools: bool
    """Schemas of tools, calls of them, and what they gave."""


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
    writer: Writer | None = None
    """None where conversations are not written so."""
    text_or_list: tuple[str, ...] = ()
    """Columns in which a text is a text even where it is the JSON of a list."""

    def matches(self, columns: Collection[str]) -> bool:
        """Whether rows with these columns may be of this format."""
        return set(self.needs) <= set(columns)


def user(content: Any) -> Message:
    """A message of the user."""
    return {"role": "user", "content": text(content, "the prompt")}


def assistant(content: Any) -> Message:
    """A message of the assistant."""
    return {"role": "assistant", "content": text(content, "the answer")}


def said(message: Message) -> str:
    """The text of a message, for formats that hold nothing beside it."""
    return str(message["content"])


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
