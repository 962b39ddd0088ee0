"""What a row of preference data says: answers to one prompt, and what is known of their worth."""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from ftk.core.types import Message
from ftk.data.formats.format import FormatError, Row, assistant, text, user
from ftk.data.formats.messages import read_messages

_DIALOGUE = re.compile(r"\n\n(Human|Assistant):")


class Answer(NamedTuple):
    """One conversation: a prompt, and a completion of it."""

    name: str
    """How errors call it, such as `chosen`."""
    prompt: list[Message]
    completion: list[Message]
    rating: float = 0.0
    """Higher is better; only the order counts."""

    @property
    def messages(self) -> list[Message]:
        """The whole conversation."""
        return [*self.prompt, *self.completion]


class Judgement(NamedTuple):
    """What a row says: a pair, a list of rated answers, or one answer with a rating or a label."""

    answers: list[Answer]
    tools: list[dict[str, Any]]
    desirable: bool | None = None
    """The label of one answer by itself; None where answers are compared with each other."""


def answer(row: Row, value: Any, *, name: str, rating: float = 0.0) -> Answer:
    """`value` as an answer to the row's prompt: a text, messages, or a whole conversation.

    The prompt is the column `prompt`, a text or messages. Without it the answer is a whole conversation, as messages or
    as text with turns of `Human:` and `Assistant:`; its prompt then ends with the last message of the user.

    Raises:
        FormatError: it does not read, has no prompt, or answers another one than the row's.
    """
    prompt = _prompt(row.get("prompt"))
    if isinstance(value, list | tuple):
        messages = read_messages(value)
        if messages[0]["role"] not in ("assistant", "tool"):
            if prompt and not _answers(messages, prompt):
                raise FormatError(f"{name} is a whole conversation, and its prompt is not the row's")
            return _split(name, messages, rating)
        if prompt:
            return Answer(name, prompt, messages, rating)
    elif prompt:
        return Answer(name, prompt, [assistant(text(value, name))], rating)
    elif _DIALOGUE.match(text(value, name)):
        return _split(name, _dialogue(text(value, name)), rating)
    raise FormatError(
        f"{name} has no prompt: give a column prompt, or write {name} as the whole conversation, a list of messages "
        "that begins with the user's"
    )


def number(value: Any, what: str) -> float:
    """
    Raises:
        FormatError: not a number, nor its text.
    """
    try:
        found = float(value)
    except (TypeError, ValueError):
        found = float("nan")
    if isinstance(value, bool) or found != found:
        shown = "missing" if value is None else repr(value)
        raise FormatError(f"{what} is {shown}, expected a number")
    return found


def same(one: Sequence[Message], other: Sequence[Message]) -> bool:
    """Whether messages say the same, whatever is marked as learned."""
    return unmarked(one) == unmarked(other)


def unmarked(messages: Sequence[Message]) -> list[Message]:
    """The messages without the marks of what is learned, and how much that weighs."""
    return [{key: value for key, value in one.items() if key not in ("train", "weight")} for one in messages]


def _prompt(value: Any) -> list[Message]:
    if value is None:
        return []
    return read_messages(value) if isinstance(value, list | tuple) else [user(value)]


def _answers(messages: Sequence[Message], prompt: Sequence[Message]) -> bool:
    """Whether a conversation begins with the prompt; some sets give only the text of one message as the prompt."""
    return same(messages[: len(prompt)], prompt) or (len(prompt) == 1 and any(same([m], prompt) for m in messages))


def _split(name: str, messages: list[Message], rating: float) -> Answer:
    asked = [place for place, message in enumerate(messages, start=1) if message["role"] in ("user", "system")]
    if not asked:
        raise FormatError(f"{name} has no message of the user, so it answers nothing")
    return Answer(name, messages[: asked[-1]], messages[asked[-1] :], rating)


def _dialogue(value: str) -> list[Message]:
    """Turns of a text, as the data released with Bai et al. 2022 (arXiv:2204.05862) has them."""
    _, *parts = _DIALOGUE.split(value)
    roles = {"Human": "user", "Assistant": "assistant"}
    return [
        {"role": roles[speaker], "content": said.strip()} for speaker, said in zip(parts[::2], parts[1::2], strict=True)
    ]
