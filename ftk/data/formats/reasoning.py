"""The reasoning before an answer: which names data sets have for it, and how a message keeps it.

Source: `reasoning_content` is what DeepSeek's and Qwen's templates read, `thinking` what gpt-oss's does, and
transformers takes `reasoning` for both; parts of type `thinking` or `reasoning` stand in lists of contents.
"""

from collections.abc import Mapping, Sequence
from typing import Any

REASONING = "reasoning_content"
"""The key under which a message keeps it, and by which templates know it."""
NAMES = (REASONING, "reasoning", "thinking")
PARTS = ("thinking", "reasoning")


def is_reasoning(part: Any) -> bool:
    """Whether one of a message's parts is its reasoning."""
    return isinstance(part, Mapping) and part.get("type") in PARTS


def read_reasoning(message: Mapping[str, Any]) -> str | None:
    """The reasoning of a message, from its own key or from its parts; None where it has none.

    Raises:
        ValueError: it is no text, or said twice and differently.
    """
    content = message.get("content")
    parts = [part for part in content if is_reasoning(part)] if isinstance(content, list | tuple) else []
    found = [_text(message[name]) for name in NAMES if message.get(name) is not None]
    found += ["".join(_text(part.get(part["type"], part.get("text"))) for part in parts)] if parts else []
    found = [one for one in found if one]
    if len(set(found)) > 1:
        raise ValueError("its reasoning is said twice and differently")
    return found[0] if found else None


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, Sequence):
        return "".join(_text(part.get("text") if isinstance(part, Mapping) else part) for part in value)
    raise ValueError(f"its reasoning is {type(value).__name__}, expected text")
