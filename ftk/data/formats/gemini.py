"""`gemini`: conversations as `contents`, the rows by which Gemini models are tuned.

Source: https://cloud.google.com/vertex-ai/generative-ai/docs/models/gemini-supervised-tuning-prepare (rows) and
https://cloud.google.com/vertex-ai/generative-ai/docs/models/tune-function-calling (calls of tools).
"""

import json
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Any

from ftk.core.types import Message
from ftk.data.formats.format import Format, FormatError, Reading, Row, Writer, said, text
from ftk.data.formats.messages import from_json, without_none

ROLES = {"user": "user", "model": "assistant", "function": "user", "system": "system"}
TYPES = ("string", "number", "integer", "boolean", "array", "object", "null")
"""Of a schema: lower case in JSON Schema, upper case in Gemini's."""


def read(row: Row) -> Reading:
    """`contents` is a list of `{role, parts}`, `systemInstruction` beside it `{parts}`; parts are texts and calls."""
    contents = without_none(from_json(row["contents"]))
    if not isinstance(contents, Sequence) or isinstance(contents, str) or not contents:
        raise FormatError("contents is not a list with at least one content")
    messages = [message for number, one in enumerate(contents, start=1) for message in _messages(one, number)]
    instruction = row.get("systemInstruction") or row.get("system_instruction")
    if instruction:
        messages.insert(0, {"role": "system", "content": _instruction(instruction)})
    return Reading(messages, _tools(row.get("tools")))


def write(reading: Reading) -> dict[str, Any]:
    """What several tools gave in a row is one content, as Gemini expects it after the calls.

    Raises:
        FormatError: a tool gave something, and no call before says which tool.
    """
    messages = reading.messages
    row: dict[str, Any] = {}
    if messages[0]["role"] == "system":
        row["systemInstruction"] = {"role": "system", "parts": [{"text": said(messages[0])}]}
        messages = messages[1:]
    row["contents"] = _contents(messages)
    if reading.tools:
        row["tools"] = [{"functionDeclarations": [_declaration(tool) for tool in reading.tools]}]
    return row


def _messages(content: Any, number: int) -> list[Message]:
    role = content.get("role", "user") if isinstance(content, Mapping) else content
    if not isinstance(content, Mapping) or role not in ROLES:
        raise FormatError(f"content {number}: the role is {role!r}, expected user or model")
    parts = content.get("parts")
    if not isinstance(parts, Sequence) or isinstance(parts, str) or not parts:
        raise FormatError(f"content {number}: parts is not a list with at least one part")
    known = ("text", "functionCall", "functionResponse")
    kinds = [next((kind for kind in known if isinstance(part, Mapping) and kind in part), None) for part in parts]
    if None in kinds or any(part.get("thought") for part in parts):
        keys = {key for part in parts for key in (part if isinstance(part, Mapping) else [type(part).__name__])}
        has = ", ".join(sorted(keys))
        raise FormatError(f"content {number}: its parts have {has}, expected {', '.join(known)} alone")
    messages: list[Message] = []
    said_and_called = [part for part, kind in zip(parts, kinds, strict=True) if kind != "functionResponse"]
    for part in (part["functionResponse"] for part in parts if "functionResponse" in part):
        messages.append({"role": "tool", "name": part.get("name", ""), "content": _given(part.get("response"))})
    if said_and_called:
        message: Message = {"role": ROLES[role], "content": "".join(_text(part, number) for part in said_and_called)}
        calls = [_call(part["functionCall"], number) for part in said_and_called if "functionCall" in part]
        messages.append({**message, "tool_calls": calls} if calls else message)
    return messages


def _text(part: Mapping[str, Any], number: int) -> str:
    return text(part["text"], f"content {number}: a part's text") if "text" in part else ""


def _call(call: Any, number: int) -> dict[str, Any]:
    if not isinstance(call, Mapping) or "name" not in call:
        raise FormatError(f"content {number}: a functionCall has no name")
    return {"type": "function", "function": {"name": call["name"], "arguments": call.get("args") or {}}}


def _given(response: Any) -> str:
    """What a tool gave; Gemini wraps what is no object in `output`."""
    if isinstance(response, Mapping) and response.keys() == {"output"} and isinstance(response["output"], str):
        return response["output"]
    return response if isinstance(response, str) else json.dumps(response, ensure_ascii=False)


def _instruction(value: Any) -> str:
    if isinstance(value, str) and not value.lstrip().startswith("{"):
        return value
    value = from_json(value)
    parts = value.get("parts") if isinstance(value, Mapping) else None
    parts = [parts] if isinstance(parts, Mapping) else parts
    if not isinstance(parts, Sequence) or not all(isinstance(part, Mapping) for part in parts):
        raise FormatError("systemInstruction has no parts with a text")
    return "".join(text(part.get("text"), "systemInstruction: a part's text") for part in parts)


def _tools(value: Any) -> list[dict[str, Any]]:
    value = (from_json(value) if value else None) or []
    if not isinstance(value, Sequence) or not all(isinstance(tool, Mapping) for tool in value):
        raise FormatError("tools is not a list of objects with functionDeclarations")
    found = []
    for tool in without_none(value):
        declarations = tool.get("functionDeclarations", tool.get("function_declarations"))
        if declarations is None:
            raise FormatError(f"a tool has {sorted(tool)}, expected functionDeclarations alone")
        for one in declarations:
            found.append({"type": "function", "function": _with_types(one, str.lower)})
    return found


def _contents(messages: Sequence[Message]) -> list[dict[str, Any]]:
    contents = []
    names: dict[str, str] = {}
    for is_tool, some in groupby(messages, key=lambda message: message["role"] == "tool"):
        if is_tool:
            contents.append({"role": "user", "parts": _responses(list(some), names)})
            continue
        for message in some:
            parts: list[dict[str, Any]] = [{"text": said(message)}]
            if "tool_calls" in message and not message["content"]:
                parts = []
            for call in message.get("tool_calls", ()):
                function = call["function"]
                names[call.get("id", "")] = function["name"]
                parts.append({"functionCall": {"name": function["name"], "args": function["arguments"]}})
            contents.append({"role": "model" if message["role"] == "assistant" else "user", "parts": parts})
    return contents


def _responses(messages: Sequence[Message], names: Mapping[str, str]) -> list[dict[str, Any]]:
    parts = []
    for message in messages:
        name = message.get("name") or names.get(message.get("tool_call_id", ""))
        if not name:
            raise FormatError(
                "a message of a tool does not say which: it has no name, and no call has its tool_call_id"
            )
        parts.append({"functionResponse": {"name": name, "response": _response(said(message))}})
    return parts


def _response(content: str) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except json.JSONDecodeError:
        return {"output": content}
    return value if isinstance(value, dict) else {"output": content}


def _declaration(tool: Mapping[str, Any]) -> dict[str, Any]:
    declaration: dict[str, Any] = _with_types(tool.get("function", tool), str.upper)
    return declaration


def _with_types(value: Any, spelled: Callable[[str], str]) -> Any:
    """A schema whose types are spelled the other way."""
    if isinstance(value, Mapping):
        return {
            key: spelled(item)
            if key == "type" and isinstance(item, str) and item.lower() in TYPES
            else _with_types(item, spelled)
            for key, item in value.items()
        }
    return [_with_types(item, spelled) for item in value] if isinstance(value, list) else value


GEMINI = Format(
    name="gemini",
    needs=("contents",),
    takes=("systemInstruction", "system_instruction", "tools"),
    read=read,
    writer=Writer(write, system="first", turns="all", tools=True),
)
