"""A system message that a recipe puts before rows."""

from collections.abc import Sequence
from typing import Literal

from pydantic import field_validator

from ftk.core.config import Section
from ftk.core.types import Message


class SystemMessage(Section):
    """A system message put before rows."""

    text: str
    """What it says."""
    when: Literal["missing", "always"] = "missing"
    """`missing`: before rows that begin with none. `always`: before every row, in place of one that is there."""

    @field_validator("text")
    @classmethod
    def _says_something(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("a system message says something; leave it out for none")
        return value


def with_system(messages: Sequence[Message], system: SystemMessage | None) -> list[Message]:
    """The messages with the system message of their source."""
    if system is None:
        return list(messages)
    has_own = bool(messages) and messages[0]["role"] == "system"
    if has_own and system.when == "missing":
        return list(messages)
    return [{"role": "system", "content": system.text}, *messages[1 if has_own else 0 :]]
