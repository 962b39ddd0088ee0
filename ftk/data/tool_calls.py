"""Calls of tools in a row: each must call a tool that the row names, and each result must answer a call."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from ftk.core.types import Message


def tool_fault(messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> str | None:
    """What is wrong with the calls of tools, for an error; None where nothing is.

    A model that learns to call a tool which it was never shown learns to make tools up.
    """
    names = [str((tool.get("function") or tool).get("name")) for tool in tools]
    ids: set[str] = set()
    num_calls = 0
    for number, message in enumerate(messages, start=1):
        for call in message.get("tool_calls") or ():
            name = str(call["function"]["name"])
            if name not in names:
                return _unknown(number, name, names)
            num_calls += 1
            if call.get("id") is not None:
                ids.add(str(call["id"]))
        if message["role"] != "tool":
            continue
        asked = message.get("tool_call_id")
        if not num_calls:
            return f"message {number} is what a tool gave, and no message before it calls one"
        if asked is not None and ids and str(asked) not in ids:
            return f"message {number} answers the call {asked!r} of a tool, and no message before it makes that call"
    return None


def _unknown(number: int, name: str, names: Sequence[str]) -> str:
    near = get_close_matches(name, names, n=1)
    hint = f" Did you mean {near[0]}?" if near else " Add its schema to tools, or take the call out"
    has = f"tools has {', '.join(names)}" if names else "the row has no tools"
    return f"message {number} calls the tool {name}, and {has}.{hint}"
