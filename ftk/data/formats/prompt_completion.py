"""`prompt_completion`: a prompt and what follows it, as texts or as lists of messages."""

from typing import Any

from ftk.core.types import Message
from ftk.data.formats.format import Format, Reading, Row, assistant, user
from ftk.data.formats.messages import read_messages, read_tools


def read(row: Row) -> Reading:
    """Where a prompt of messages holds earlier answers, they are shown and not learned."""
    prompt, completion = row["prompt"], row["completion"]
    before = [_shown(message) for message in read_messages(prompt)] if _is_list(prompt) else [user(prompt)]
    after = read_messages(completion) if _is_list(completion) else [assistant(completion)]
    return Reading([*before, *after], read_tools(row.get("tools")))


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)


def _shown(message: Message) -> Message:
    return {**message, "train": False} if message["role"] == "assistant" else message


PROMPT_COMPLETION = Format(name="prompt_completion", needs=("prompt", "completion"), takes=("tools",), read=read)
