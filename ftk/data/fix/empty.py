"""`empty`: rows from which nothing can be learned."""

from collections.abc import Mapping
from typing import Any

from ftk.data.fix.texts import texts_of
from ftk.data.formats import FORMATS
from ftk.data.formats.format import Format

ABOUT = "rows without a question or an answer go"


def is_empty(row: Mapping[str, Any], format: Format[Any] | None) -> bool:
    """Whether a row says nothing, or one of its sides does not.

    Raises:
        FormatError: the row does not read, so that no one can tell.
    """
    if format is None:
        return not any(text.strip() for text in texts_of(row, None))
    if any(_is_blank(row.get(column)) for column in format.needs):
        return True
    return format.name in FORMATS and _is_one_sided(row, format)


def _is_one_sided(row: Mapping[str, Any], format: Format[Any]) -> bool:
    messages, _ = format.read({column: _filled(value) for column, value in row.items()})
    asked = [message for message in messages if message["role"] != "assistant"]
    answers = [one for one in messages if one["role"] == "assistant" and one.get("train") is not False]
    blank = [one for one in answers if _is_blank(one["content"]) and not one.get("tool_calls")]
    return not answers or bool(blank) or all(_is_blank(message["content"]) for message in asked)


def _is_blank(value: Any) -> bool:
    return value is None or (isinstance(value, str | list | tuple | Mapping) and not (_stripped(value)))


def _stripped(value: Any) -> Any:
    return value.strip() if isinstance(value, str) else value


def _filled(value: Any) -> Any:
    """With an empty text where a message has none, so that it reads."""
    if isinstance(value, list | tuple):
        return [_filled(item) for item in value]
    if isinstance(value, Mapping) and not value.get("tool_calls"):
        return {
            key: "" if item is None and key in ("content", "value", "text") else item for key, item in value.items()
        }
    return value
