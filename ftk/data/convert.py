"""From a conversation to rows of a format that may hold less, and what is lost on the way."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, zip_longest
from typing import Any, Literal

from ftk.core.types import Message
from ftk.data.formats.format import Format, FormatError, Reading
from ftk.data.formats.prompt_completion import completion_start


@dataclass(frozen=True)
class Policy:
    """What becomes of what a format cannot hold."""

    system: Literal["fold", "drop", "refuse"] = "fold"
    """A system message is put before the question that follows it, dropped, or refused."""
    turns: Literal["refuse", "split", "drop"] = "refuse"
    """A conversation of several turns is refused, becomes one row an answer, or is left out."""
    tools: Literal["refuse", "drop"] = "refuse"
    """A conversation that calls tools is refused or left out; schemas that it never calls are refused or dropped."""


DEFAULT_POLICY = Policy()


class CannotHold(Exception):
    """A conversation that the format cannot hold, and the policy refuses."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(what)
        self.what = what
        self.remedy = remedy


def convert(reading: Reading, format: Format[Reading], policy: Policy, lost: Counter[str]) -> list[dict[str, Any]]:
    """The rows that a conversation becomes: mostly one, several where it is split, none where it is left out.

    Each row is read back and compared with what was written. `lost` counts, by what was lost, the rows that lost it.

    Raises:
        CannotHold: the format cannot hold the conversation, and the policy refuses such.
        ValueError: conversations are not written in this format.
    """
    if format.writer is None:
        raise ValueError(f"format {format.name} is only read")
    fitted = _without_tools(reading, policy, lost) if not format.writer.tools else reading
    if fitted is None:
        return []
    messages = fitted.messages
    pieces = [messages] if format.writer.turns == "all" else _pieces(messages, format.writer.turns, policy, lost)
    if format.writer.system != "anywhere":
        kept = 1 if format.writer.system == "first" else 0
        pieces = [_without_system(piece, kept=kept, policy=policy, lost=lost) for piece in pieces]
    return [_written(Reading(piece, fitted.tools), format, lost) for piece in pieces]


def _without_tools(reading: Reading, policy: Policy, lost: Counter[str]) -> Reading | None:
    calls = any(message["role"] == "tool" or "tool_calls" in message for message in reading.messages)
    if not calls and not reading.tools:
        return reading
    if policy.tools == "refuse":
        raise CannotHold("calls of tools" if calls else "schemas of tools", "--tools drop leaves them out")
    lost["rows left out: they call tools" if calls else "schemas of tools"] += 1
    return None if calls else Reading(reading.messages, [])


def _pieces(
    messages: list[Message], turns: Literal["one", "pairs", "last"], policy: Policy, lost: Counter[str]
) -> list[list[Message]]:
    """The conversation whole where it fits, else one piece a learned answer."""
    fits, what = _FITS[turns]
    if fits(messages):
        return [messages]
    if policy.turns == "drop":
        lost[f"rows left out: {what}"] += 1
        return []
    pieces = _split(messages, with_history=turns == "last") if policy.turns == "split" else []
    if not pieces or not all(map(fits, pieces)):
        split = "" if policy.turns == "split" else "--turns split makes one row of each answer, "
        raise CannotHold(what, f"{split}--turns drop leaves them out")
    lost["rows split into one for each answer"] += 1
    num_torn = 0 if turns == "last" else len(pieces) - _is_asked_first(messages, pieces[0])
    if num_torn:
        lost["new rows without the turns before them"] += num_torn
    return pieces


def _is_one_turn(messages: Sequence[Message]) -> bool:
    return _is_pairs(messages) and sum(message["role"] == "user" for message in messages) == 1


def _is_pairs(messages: Sequence[Message]) -> bool:
    roles = [message["role"] for message in messages if message["role"] != "system"]
    asked_in_turn = roles == ["user", "assistant"] * (len(roles) // 2)
    return asked_in_turn and any(map(_is_learned, messages))


def _learns_last_alone(messages: Sequence[Message]) -> bool:
    border = completion_start(messages)
    return (
        0 < border < len(messages)
        and not any(map(_is_learned, messages[:border]))
        and any(map(_is_learned, messages[border:]))
    )


_FITS = {
    "one": (_is_one_turn, "several turns, or none to learn"),
    "pairs": (_is_pairs, "turns that are no pairs of question and answer, or none to learn"),
    "last": (_learns_last_alone, "several answers to learn"),
}
"""By what a format holds of turns: whether a conversation is such, and what one is that is not."""


def _is_learned(message: Message) -> bool:
    return message["role"] == "assistant" and message.get("train") is not False


def _is_asked_first(messages: Sequence[Message], piece: Sequence[Message]) -> bool:
    """Whether nothing was said before the question of a piece."""
    question = next(message for message in piece if message["role"] == "user")
    return next(message for message in messages if message["role"] != "system") is question


def _split(messages: list[Message], *, with_history: bool) -> list[list[Message]]:
    """What is asked and answered, for each run of messages of the assistant that teaches; perhaps with all before."""
    system = [message for message in messages[:1] if message["role"] == "system"]
    pieces = []
    place = asked = 0
    for is_answer, some in groupby(messages, key=lambda message: message["role"] in ("assistant", "tool")):
        start, place = place, place + len(list(some))
        if not is_answer:
            asked = start
        elif any(map(_is_learned, messages[start:place])):
            before = [_shown(one) for one in messages[:start]] if with_history else [*system, *messages[asked:start]]
            # Where the conversation begins with its system message, that is one of what was asked.
            before = before[len(system) :] if not with_history and asked == 0 else before
            pieces.append([*before, *messages[start:place]])
    return pieces


def _shown(message: Message) -> Message:
    return {**message, "train": False} if message["role"] == "assistant" else message


def _without_system(messages: list[Message], *, kept: int, policy: Policy, lost: Counter[str]) -> list[Message]:
    """Without the system messages but for the first, where `kept` is 1 and it stands at the beginning."""
    if not any(message["role"] == "system" for message in messages[kept:]):
        return messages
    if policy.system == "refuse":
        raise CannotHold("system messages", "--system fold puts them before the question, --system drop drops them")
    waiting: list[str] = []
    left: list[Message] = messages[:kept]
    for message in messages[kept:]:
        if message["role"] == "system":
            waiting.append(str(message["content"]))
        elif message["role"] == "user" and waiting and policy.system == "fold":
            left.append({**message, "content": "\n\n".join([*waiting, str(message["content"])])})
            waiting = []
        else:
            left.append(message)
    if waiting and policy.system == "fold":
        raise CannotHold("a system message that no question follows", "--system drop drops it")
    lost[f"system messages {'put before the question' if policy.system == 'fold' else 'dropped'}"] += 1
    return left


def _written(reading: Reading, format: Format[Reading], lost: Counter[str]) -> dict[str, Any]:
    assert format.writer is not None
    try:
        row = format.writer.write(reading)
        back = format.read(row)
    except FormatError as error:
        raise CannotHold(str(error), "messages holds them") from error
    if len(back.messages) != len(reading.messages) or _functions(back) != _functions(reading):
        raise CannotHold("what reads back differently in it", "messages holds them")
    for what in {what for one, other in zip_longest(reading.messages, back.messages) for what in _lost(one, other)}:
        lost[what] += 1
    return row


def _functions(reading: Reading) -> list[Any]:
    return [tool.get("function", tool) for tool in reading.tools]


def _lost(message: Message, back: Message) -> list[str]:
    """What a message lost by being written and read.

    Raises:
        CannotHold: it says something else.
    """
    calls, calls_back = message.get("tool_calls", ()), back.get("tool_calls", ())
    same_calls = [call["function"] for call in calls] == [call["function"] for call in calls_back]
    if message["role"] != back["role"] or not _same_text(message, back) or not same_calls:
        raise CannotHold("what reads back differently in it", "messages holds them")
    found = []
    if "train" in message and message["train"] != back.get("train"):
        found.append(f"marks of answers that are {'' if message['train'] else 'not '}learned")
    if list(calls) != list(calls_back) or "tool_call_id" in message.keys() - back.keys():
        found.append("ids of calls of tools")
    known = {"role", "content", "tool_calls", "tool_call_id", "train"}
    return [*found, *(f"field {key} of messages" for key in sorted(message.keys() - back.keys() - known))]


def _same_text(message: Message, back: Message) -> bool:
    if message["content"] == back["content"]:
        return True
    # Gemini holds what a tool gave as an object, so its JSON may be spaced otherwise.
    parsed = _parsed(message["content"])
    return message["role"] == "tool" and parsed is not None and bool(parsed == _parsed(back["content"]))


def _parsed(content: str) -> Any:
    try:
        return json.loads(content)
    except json.JSONDecodeError:
        return None
