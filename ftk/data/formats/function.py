"""`module:function`: a row format of the user's own."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ftk.core.named import load_function
from ftk.data.formats.format import Format, FormatError, Reading, Row
from ftk.data.formats.messages import read_messages, read_tools


def function_format(name: str) -> Format:
    """The format whose rows a function reads: from a row, a mapping, to `{"messages": [...]}`.

    Raises:
        RecipeError: there is no such function.
    """
    function = load_function(name, purpose="a row format: function(row) -> {'messages': [...]}")

    def read(row: Row) -> Reading:
        try:
            value: Any = function(dict(row))
        except Exception as error:  # code of the user's own may fail in any way
            raise FormatError(f"{name} fails on it: {type(error).__name__}: {error}") from error
        if not isinstance(value, Mapping) or "messages" not in value:
            raise FormatError(f"{name} gave {value!r:.100}, expected {{'messages': [...]}}")
        return Reading(read_messages(value["messages"]), read_tools(value.get("tools")))

    return Format(name=name, needs=(), read=read)


def function_source(name: str) -> bytes:
    """The file that defines the function, so that what was rendered by it is not reused once it has changed.

    Raises:
        RecipeError: there is no such function.
    """
    from inspect import getsourcefile

    function = load_function(name, purpose="a row format")
    try:
        path = getsourcefile(function)
    except TypeError:  # a built-in or a callable object: nothing to read
        path = None
    return Path(path).read_bytes() if path else b""
