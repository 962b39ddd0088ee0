"""Messages that say what formats differ in."""

from collections import Counter
from typing import Any

from ftk.data.convert import DEFAULT_POLICY, Policy, convert
from ftk.data.formats import FORMATS
from ftk.data.formats.format import Reading


def user(content: str) -> dict[str, Any]:
    return {"role": "user", "content": content}


def assistant(content: str, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **more}


def system(content: str) -> dict[str, Any]:
    return {"role": "system", "content": content}


def call(name: str, id: str | None = None, **arguments: Any) -> dict[str, Any]:
    function = {"type": "function", "function": {"name": name, "arguments": arguments}}
    return function if id is None else {"id": id, **function}


TOOL = {
    "type": "function",
    "function": {
        "name": "sum",
        "description": "Adds.",
        "parameters": {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]},
    },
}
ONE = [user("q “1”\n"), assistant(" a")]
SYSTEM = [system("s"), *ONE]
TURNS = [user("q1"), assistant("a1"), user("q2"), assistant("a2")]
UNLEARNED = [user("q1"), assistant("a1", train=False), user("q2"), assistant("a2")]
CALLS = [
    user("2+2"),
    assistant("", tool_calls=[call("sum", x=2), call("sum", x=3)]),
    {"role": "tool", "name": "sum", "content": '{"sum": 4}'},
    {"role": "tool", "name": "sum", "content": "five"},
    assistant("4"),
]
HOLD = {
    # What each format holds without any loss.
    "messages": [ONE, SYSTEM, TURNS, UNLEARNED, CALLS],
    "sharegpt": [ONE, SYSTEM, TURNS, UNLEARNED],
    "alpaca": [ONE, SYSTEM, TURNS],
    "prompt_completion": [ONE, SYSTEM, UNLEARNED, CALLS],
    "context_question_answer": [ONE],
    "question_answer": [ONE],
    "gemini": [ONE, SYSTEM, TURNS, CALLS],
}


def converted(
    messages: list[dict[str, Any]], to: str, policy: Policy = DEFAULT_POLICY, tools: list[dict[str, Any]] | None = None
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    lost: Counter[str] = Counter()
    return convert(Reading(messages, tools or []), FORMATS[to], policy, lost), dict(lost)
