"""`module:function`: a row format of the user's own."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ftk.core.named import load_function
from ftk.data.formats.format import Format, FormatError, Reading, Row
from ftk.data.formats.judgement import Judgement
from ftk.data.formats.messages import read_messages, read_tools


def function_format(name: str) -> Format[Reading]:
    """The format whose rows a function reads: from a row, a mapping, to `{"messages": [...]}`.

    Raises:
        RecipeError: there is no such function.
    """
    function = load_function(name, purpose="a row format: function(row) -> {'messages': [...]}")

    def read(row: Row) -> Reading:
        value = _call(function, row, name=name, expected="{'messages': [...]}")
        if "messages" not in value:
            raise FormatError(f"{name} gave {value!r:.100}, expected {{'messages': [...]}}")
        return Reading(read_messages(value["messages"]), read_tools(value.get("tools")))

    return Format(name=name, needs=(), read=read)


def judging_function_format(name: str, formats: Mapping[str, Format[Judgement]]) -> Format[Judgement]:
    """The format whose rows a function reads: from a row to one with the columns of one of `formats`.

    Raises:
        RecipeError: there is no such function.
    """
    expected = "the columns of a format of preference data, such as {'prompt': ..., 'chosen': ..., 'rejected': ...}"
    function = load_function(name, purpose=f"a row format: function(row) -> {expected}")

    def read(row: Row) -> Judgement:
        value = _call(function, row, name=name, expected=expected)
        format = next((one for one in formats.values() if one.matches(value)), None)
        if format is None:
            raise FormatError(f"{name} gave {value!r:.100}, expected {expected}")
        return format.read(value)

    return Format(name=name, needs=(), read=read)


def _call(function: Callable[..., Any], row: Row, *, name: str, expected: str) -> Mapping[str, Any]:
    try:
        value: Any = function(dict(row))
    except Exception as error:  # code of the user's own may fail in any way
        raise FormatError(f"{name} fails on it: {type(error).__name__}: {error}") from error
    if not isinstance(value, Mapping):
        raise FormatError(f"{name} gave {value!r:.100}, expected {expected}")
    return value


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
