"""`sharegpt`: conversations as lists of `{from, value}`."""

from collections.abc import Mapping, Sequence
from typing import Any

from ftk.core.types import Message
from ftk.data.formats.format import Format, FormatError, Reading, Row, text
from ftk.data.formats.messages import from_json, read_messages, read_tools

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
}


def read(row: Row) -> Reading:
    """`conversations` is a list of `{from, value}`, in some sets of `{role, content}`; `system` may stand beside it."""
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


def _message(turn: Any, number: int) -> Message:
    if not isinstance(turn, Mapping) or turn.get("from") not in ROLES:
        speaker = turn.get("from") if isinstance(turn, Mapping) else turn
        raise FormatError(f"turn {number}: it is from {speaker!r}, expected one of {', '.join(ROLES)}")
    message: Message = {"role": ROLES[turn["from"]], "content": text(turn.get("value"), f"turn {number}: value")}
    if turn.get("weight") == 0:
        message["train"] = False
    return message


SHAREGPT = Format(name="sharegpt", needs=("conversations",), takes=("system", "tools"), read=read)
