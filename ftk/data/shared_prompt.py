"""Where two answers part: what both begin with is their prompt, and what follows is compared."""

from collections.abc import Sequence

from ftk.core.types import Message
from ftk.data.formats.format import FormatError
from ftk.data.formats.judgement import Answer, same


def shared_length(better: Answer, worse: Answer, *, who: str) -> int:
    """Messages that both conversations begin with, up to the first answer in which they differ.

    Args:
        better: the conversation with the better answer.
        worse: the one with the worse answer.
        who: how an error calls the two.

    Raises:
        FormatError: the two are equal, answer different prompts, or one ends where they part.
    """
    one, other = better.messages, worse.messages
    if same(one, other):
        raise FormatError(f"{who} are equal, so there is nothing to prefer. Take the row out, or correct it")
    border = next(
        (place for place, (left, right) in enumerate(zip(one, other, strict=False)) if not same([left], [right])),
        min(len(one), len(other)),
    )
    while border and "tool" in _roles(one, other, border):
        border -= 1  # what a tool gave belongs to the answer that called it
    if _roles(one, other, border) & {"system", "user"} or not border:
        raise FormatError(
            f"{who} answer different prompts: they differ from message {border + 1} on, before an answer. Pair "
            "answers to one prompt"
        )
    for answer in (better, worse):
        if border == len(answer.messages):
            raise FormatError(
                f"{answer.name} is empty after what it shares with the other answer. Take the row out, or give it an "
                "answer"
            )
    return border


def check_compared(name: str, completion: Sequence[Message]) -> None:
    """
    Raises:
        FormatError: the completion counts in part, or not at all: a comparison is of whole answers.
    """
    answers = [message for message in completion if message["role"] == "assistant"]
    for message in answers:
        if "weight" in message:
            raise FormatError(
                f"{name} has a message of weight {message['weight']:g}. A comparison is of whole answers: give weight "
                "1, or 0 for a message that is shown and not compared"
            )
    if answers and all(message.get("train") is False for message in answers):
        raise FormatError(
            f"{name} has no message that is compared: all of its answers are marked as not learned. Take the marks "
            "(train or weight) out, or the row"
        )


def _roles(one: Sequence[Message], other: Sequence[Message], place: int) -> set[str]:
    return {messages[place]["role"] for messages in (one, other) if place < len(messages)}
