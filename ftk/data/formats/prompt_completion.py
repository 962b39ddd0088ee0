"""`prompt_completion`: a prompt and what follows it, as texts or as lists of messages."""

from collections.abc import Sequence
from typing import Any

from ftk.core.types import Message
from ftk.data.formats.format import Format, Reading, Row, Writer, assistant, said, user
from ftk.data.formats.messages import read_messages, read_tools, write_messages


def read(row: Row) -> Reading:
    """Where a prompt of messages holds earlier answers, they are shown and not learned."""
    prompt, completion = row["prompt"], row["completion"]
    before = [_shown(message) for message in read_messages(prompt)] if _is_list(prompt) else [user(prompt)]
    after = read_messages(completion) if _is_list(completion) else [assistant(completion)]
    return Reading([*before, *after], read_tools(row.get("tools")))


def write(reading: Reading) -> dict[str, Any]:
    """Texts for a question and its answer; lists of messages for what texts cannot say.

    The completion is what follows the last message of the user; answers before it are shown and not learned.
    """
    messages = reading.messages
    border = completion_start(messages)
    tools: dict[str, Any] = {"tools": reading.tools} if reading.tools else {}
    is_plain = all(message.keys() == {"role", "content"} for message in messages)
    if is_plain and [message["role"] for message in messages] == ["user", "assistant"]:
        return {"prompt": said(messages[0]), "completion": said(messages[1]), **tools}
    # That these are not learned is what standing in the prompt says.
    prompt = [{key: value for key, value in one.items() if key != "train"} for one in messages[:border]]
    return {"prompt": write_messages(prompt), "completion": write_messages(messages[border:]), **tools}


def completion_start(messages: Sequence[Message]) -> int:
    """Place of the first message after the last one of the user or the system."""
    asked = [place for place, message in enumerate(messages, start=1) if message["role"] in ("user", "system")]
    return asked[-1] if asked else 0


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)


def _shown(message: Message) -> Message:
    return {**message, "train": False} if message["role"] == "assistant" else message


PROMPT_COMPLETION = Format(
    name="prompt_completion",
    needs=("prompt", "completion"),
    takes=("tools",),
    read=read,
    writer=Writer(write, system="anywhere", turns="last", tools=True),
    text_or_list=("prompt", "completion"),
)
