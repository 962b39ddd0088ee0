"""Which answers of a conversation are learned."""

from collections.abc import Sequence
from typing import Literal

from ftk.core.errors import DataError
from ftk.core.types import Conversation, Message
from ftk.data.checks import place_of

TrainOn = Literal["all", "last", "marked"]


def last_answer(conversation: Conversation) -> int:
    """Place of the last answer among the messages.

    Raises:
        DataError: there is none.
    """
    messages: Sequence[Message] = conversation.messages
    for number in range(len(messages) - 1, -1, -1):
        if messages[number]["role"] == "assistant":
            return number
    raise DataError("the row has no answer: no message of the assistant", place=place_of(conversation))


def answers_of(conversation: Conversation) -> list[int]:
    """Places of all answers."""
    return [number for number, message in enumerate(conversation.messages) if message["role"] == "assistant"]


def learned_answers(conversation: Conversation, train_on: TrainOn) -> list[int]:
    """Places of the answers that `train_on` asks for, those among them that the row says not to learn included."""
    answers = answers_of(conversation)
    if train_on == "marked":
        return [turn for turn in answers if conversation.messages[turn].get("train") is True]
    return answers[-1:] if train_on == "last" else answers


def nothing_learned(conversation: Conversation) -> str:
    """Why none of the answers is learned, for an error."""
    marks = [conversation.messages[turn].get("train") for turn in answers_of(conversation)]
    if marks and not all(mark is False for mark in marks):
        return (
            "the row has no answer to learn from: task.train_on leaves all of its answers out. With `marked` one of "
            "them needs `train: true` or a `weight` above 0"
        )
    what = "all of its answers are marked as not learned" if marks else "no message of the assistant"
    return f"the row has no answer to learn from: {what}"


def is_silent(message: Message) -> bool:
    """Whether the row says that this answer is shown and not learned."""
    return message.get("train") is False
