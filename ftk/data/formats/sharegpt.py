"""`sharegpt`: conversations as lists of `{from, value}`."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ftk.core.types import Message
from ftk.data.formats.format import Format, FormatError, Reading, Row, Writer, said, text
from ftk.data.formats.messages import from_json, read_calls, read_marks_of, read_messages, read_tools

ROLES = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "tool": "tool",
    "observation": "tool",
    "function_response": "tool",
    "function_call": "assistant",
}
SPEAKERS = {"system": "system", "user": "human", "assistant": "gpt", "tool": "observation"}
"""How roles are written."""


def read(row: Row) -> Reading:
    """`conversations` is a list of `{from, value}`, in some sets of `{role, content}`; `system` may stand beside it.

    The value of a turn from `function_call` is the JSON of a call, `{name, arguments}`, or of several.
    """
    turns = from_json(row["conversations"])
    if not isinstance(turns, Sequence) or isinstance(turns, str) or not turns:
        raise FormatError("conversations is not a list with at least one turn")
    if isinstance(turns[0], Mapping) and "role" in turns[0]:
        messages = read_messages(turns)
    else:
        messages = [_message(turn, number) for number, turn in enumerate(turns, start=1)]
    if row.get("system") and messages[0]["role"] != "system":
        messages.insert(0, {"role": "system", "content": text(row["system"], "system")})
    return Reading(messages, read_tools(row.get("tools")))


def write(reading: Reading) -> dict[str, Any]:
    """Calls of tools become turns from `function_call`, and what they gave turns from `observation`.

    Raises:
        FormatError: an answer has both text and calls, for which there is no turn.
    """
    turns = [_turn(message, number) for number, message in enumerate(reading.messages, start=1)]
    return {"conversations": turns, **({"tools": reading.tools} if reading.tools else {})}


def _turn(message: Message, number: int) -> dict[str, Any]:
    turn = {"from": SPEAKERS[message["role"]], "value": said(message)}
    if "tool_calls" in message:
        if message["content"]:
            raise FormatError(f"message {number} has both text and calls of tools")
        calls = [call["function"] for call in message["tool_calls"]]
        value = json.dumps(calls[0] if len(calls) == 1 else calls, ensure_ascii=False)
        turn = {"from": "function_call", "value": value}
    return {**turn, "weight": message.get("weight", 1) if message["train"] else 0} if "train" in message else turn


def _message(turn: Any, number: int) -> Message:
    if not isinstance(turn, Mapping) or turn.get("from") not in ROLES:
        speaker = turn.get("from") if isinstance(turn, Mapping) else turn
        raise FormatError(f"turn {number}: it is from {speaker!r}, expected one of {', '.join(ROLES)}")
    value = text(turn.get("value"), f"turn {number}: value")
    message: Message = {"role": ROLES[turn["from"]], "content": value}
    if turn["from"] == "function_call":
        message = {"role": "assistant", "content": "", "tool_calls": read_calls(value, number)}
    return {**message, **read_marks_of(turn, message["role"], number)}


SHAREGPT = Format(
    name="sharegpt",
    needs=("conversations",),
    takes=("system", "tools"),
    read=read,
    writer=Writer(write, system="anywhere", turns="all", tools=True),
)
