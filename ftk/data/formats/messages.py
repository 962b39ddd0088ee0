"""`messages`: conversations as OpenAI writes them, with calls of tools and their results."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ftk.core.types import Message
from ftk.data.formats.format import Format, FormatError, Reading, Row, Writer, text
from ftk.data.formats.reasoning import NAMES, REASONING, is_reasoning, read_reasoning
from ftk.data.turn_marks import read_marks

ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool"}


def read(row: Row) -> Reading:
    """`messages` is a list of `{role, content}`; `tools` beside it, a list of schemas, may also be JSON text."""
    return Reading(read_messages(row["messages"]), read_tools(row.get("tools")))


def write(reading: Reading) -> dict[str, Any]:
    """Arguments of calls become JSON text, and marks of answers a `weight`: 0 is not learned, as OpenAI has them."""
    return {"messages": write_messages(reading.messages), **({"tools": reading.tools} if reading.tools else {})}


def write_messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """The messages as `read_messages` takes them, without what only ftk writes into them."""
    return [_written(message) for message in messages]


def read_messages(value: Any) -> list[Message]:
    """
    Raises:
        FormatError: not a list of messages with known roles.
    """
    value = from_json(value)
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        raise FormatError("messages is not a list with at least one message")
    return [_message(message, number) for number, message in enumerate(value, start=1)]


def read_tools(value: Any) -> list[dict[str, Any]]:
    """
    Raises:
        FormatError: not a list of schemas.
    """
    value = (from_json(value) if value else None) or []  # CSV has an empty text where there are none
    if not isinstance(value, Sequence) or not all(isinstance(tool, Mapping) for tool in value):
        raise FormatError("tools is not a list of JSON schemas")
    return [without_none(tool) for tool in value]


def read_calls(value: Any, number: int) -> list[dict[str, Any]]:
    """The calls of tools of message `number`: one or a list of them, or the JSON text of either.

    Raises:
        FormatError: a call has no function name, or its arguments are no JSON.
    """
    calls = from_json(value) or ()
    return [_call(call, number) for call in ([calls] if isinstance(calls, Mapping) else calls)]


def from_json(value: Any) -> Any:
    """A value that some data sets write as JSON text within JSON; anything else as it is.

    Raises:
        FormatError: text that is not JSON.
    """
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except json.JSONDecodeError as error:
        raise FormatError(f"expected a list or its JSON text, found other text ({error})") from error


def without_none(value: Any) -> Any:
    """Without the keys that Parquet fills in with null wherever another row has them."""
    if isinstance(value, Mapping):
        return {key: without_none(item) for key, item in value.items() if item is not None}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [without_none(item) for item in value]
    return value


def _message(value: Any, number: int) -> Message:
    if not isinstance(value, Mapping) or value.get("role") not in ROLES:
        role = value.get("role") if isinstance(value, Mapping) else value
        raise FormatError(f"message {number}: the role is {role!r}, expected one of {', '.join(ROLES)}")
    left = ("weight", "train", "content", *NAMES)
    message: Message = {key: item for key, item in without_none(value).items() if key not in left}
    message["role"] = ROLES[value["role"]]
    calls = read_calls(message.pop("tool_calls", None), number)
    if calls:
        message["tool_calls"] = calls
    content = value.get("content")
    message["content"] = "" if content is None and calls else _content(content, number)
    return {**message, **_reasoning(value, number), **read_marks_of(value, message["role"], number)}


def read_marks_of(value: Mapping[str, Any], role: str, number: int) -> Message:
    """What message `number` says of being learned: `train` and `weight`, as messages keep them.

    Raises:
        FormatError: it says no such thing, or says it of what is no answer.
    """
    try:
        marks = read_marks(value)
    except ValueError as error:
        raise FormatError(f"message {number}: {error}") from error
    if role == "assistant":
        return marks
    if marks.get("train"):
        raise FormatError(
            f"message {number}: it is of {role} and is marked as learned; answers alone are. Take its train or weight "
            "out (task.prompt_loss_weight says what prompts weigh)"
        )
    return {}


def _reasoning(value: Mapping[str, Any], number: int) -> Message:
    try:
        reasoning = read_reasoning(value)
    except ValueError as error:
        raise FormatError(f"message {number}: {error}") from error
    if reasoning is not None and value["role"] != "assistant":
        raise FormatError(f"message {number}: it is of {value['role']} and has reasoning, which answers alone have")
    return {} if reasoning is None else {REASONING: reasoning}


def _content(content: Any, number: int) -> str:
    if isinstance(content, Sequence) and not isinstance(content, str):
        content = [part for part in content if not is_reasoning(part)]
        kinds = [part.get("type") if isinstance(part, Mapping) else None for part in content]
        if any(kind != "text" for kind in kinds):
            raise FormatError(f"message {number}: content has a part of type {kinds}, expected text alone")
        return "".join(text(part.get("text"), f"message {number}: a part's text") for part in content)
    return text(content, f"message {number}: content")


def _call(call: Any, number: int) -> dict[str, Any]:
    function = call.get("function", call) if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or "name" not in function:
        raise FormatError(f"message {number}: a tool call has no function name")
    arguments = function.get("arguments") or {}
    if isinstance(arguments, str):
        # OpenAI writes them as JSON text; chat templates expect the mapping, and would quote the text a second time.
        arguments = from_json(arguments)
    return {**call, "type": "function", "function": {"name": function["name"], "arguments": arguments}}


def _written(message: Message) -> dict[str, Any]:
    written = {key: value for key, value in message.items() if key != "train"}
    if "tool_calls" in message:
        written["content"] = message["content"] or None
        written["tool_calls"] = [_written_call(call) for call in message["tool_calls"]]
    if "train" in message:
        written["weight"] = message.get("weight", 1) if message["train"] else 0
    return written


def _written_call(call: Mapping[str, Any]) -> dict[str, Any]:
    function = call["function"]
    arguments = json.dumps(function["arguments"], ensure_ascii=False)
    return {**call, "function": {"name": function["name"], "arguments": arguments}}


MESSAGES = Format(
    name="messages",
    needs=("messages",),
    takes=("tools",),
    read=read,
    writer=Writer(write, system="anywhere", turns="all", tools=True),
)
