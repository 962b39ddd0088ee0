"""The texts of a row, wherever they stand in it."""

import json
from collections.abc import Callable, Collection, Mapping
from typing import Any

from ftk.data.fix.text_fix import Text
from ftk.data.formats import FORMATS, PREFERENCE_FORMATS, format_of
from ftk.data.formats.format import Format

Change = Callable[[Text, str], str]
"""From a text and where it stands in the row, such as `messages[1].content`, to what shall stand there."""

_NO_TEXT = {"tools", "label", "rating", "ratings"}
"""Columns of formats in which no one speaks."""
_NO_TEXT_WITHIN = {
    *("role", "from", "type", "id", "name", "weight", "train", "mimeType", "fileUri"),
    *("tool_calls", "tool_call_id", "function_call", "functionCall", "functionResponse"),
}
"""Keys of messages under which no one speaks, or which a program reads."""


def any_format_of(columns: Collection[str]) -> Format[Any] | None:
    """The format of rows with these columns, of preference data or of conversations; None where it is none known."""
    return format_of(columns, PREFERENCE_FORMATS) or format_of(columns, FORMATS)


def read_columns(row: Mapping[str, Any], format: Format[Any] | None) -> list[str]:
    """The columns that training reads; all of them where the format is not known."""
    return list(row) if format is None else [one for one in (*format.needs, *format.takes) if one in row]


def text_columns(row: Mapping[str, Any], format: Format[Any] | None) -> list[str]:
    """Those of them in which someone speaks."""
    found = read_columns(row, format)
    return found if format is None else [column for column in found if column not in _NO_TEXT]


def with_texts(row: Mapping[str, Any], format: Format[Any] | None, change: Change) -> dict[str, Any]:
    """The row with each of its texts changed; numbers, and columns that training does not read, stay as they are."""
    changed = dict(row)
    for column in text_columns(row, format):
        value = row[column]
        if isinstance(value, str) and (parsed := _parsed(column, value, format)) is not None:
            after = _walk(parsed, column, change)
            changed[column] = value if after == parsed else json.dumps(after, ensure_ascii=False)
        elif isinstance(value, str):
            changed[column] = change(_text(column, value, format), column)
        else:
            changed[column] = _walk(value, column, change)
    return changed


def texts_of(row: Mapping[str, Any], format: Format[Any] | None) -> list[str]:
    """All texts of a row in their order."""
    found: list[str] = []

    def note(text: Text, place: str) -> str:
        found.append(text.value)
        return text.value

    with_texts(row, format, note)
    return found


def _text(column: str, value: str, format: Format[Any] | None) -> Text:
    if format is None:
        return Text(value, begins=False, ends=False)
    # A completion goes on where its prompt ends: the blank between them is part of the text.
    border = format.name in ("prompt_completion", "unpaired")
    return Text(value, begins=not (border and column == "completion"), ends=not (border and column == "prompt"))


def _parsed(column: str, value: str, format: Format[Any] | None) -> Any:
    """The list that a column holds as JSON text, as CSV and some data sets have it; None where it is a text."""
    if format is None or column in format.text_or_list or value.lstrip()[:1] not in ("[", "{"):
        return None
    if column not in ("messages", "conversations", "contents", "completions", "ranked", "systemInstruction"):
        return None
    try:
        return json.loads(value, strict=False)
    except json.JSONDecodeError:
        return None


def _walk(value: Any, place: str, change: Change) -> Any:
    if isinstance(value, str):
        return change(Text(value), place)
    if isinstance(value, Mapping):
        if value.get("from") == "function_call":
            return value
        return {
            key: item if key in _NO_TEXT_WITHIN else _walk(item, f"{place}.{key}", change)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        last = len(value) - 1
        return [
            _part(item, f"{place}[{number}]", change, begins=number == 0, ends=number == last)
            for number, item in enumerate(value)
        ]
    return value


def _part(value: Any, place: str, change: Change, *, begins: bool, ends: bool) -> Any:
    """One of a list: a part of a message, which goes on in the next one, or a message or answer by itself."""
    is_part = isinstance(value, Mapping) and "text" in value and not {"role", "from"} & value.keys()
    if is_part and isinstance(value["text"], str):
        return {**value, "text": change(Text(value["text"], begins, ends), f"{place}.text")}
    return _walk(value, place, change)
