"""`empty`: rows without a prompt or an answer."""

from collections.abc import Iterator
from dataclasses import dataclass

from ftk.core.types import Message
from ftk.data.check.finding import Remark
from ftk.data.check.row import CheckedRow

NO_TEXT = Remark("empty", "error", "the row is empty")
NO_PROMPT = Remark("empty", "error", "the prompt is empty: there is nothing to answer")
NO_ANSWER = Remark("empty", "error", "the answer is empty: there is nothing to learn")
NO_MESSAGE = Remark("empty", "warning", "a message within the conversation is empty")
OPEN_END = Remark("empty", "warning", "the conversation ends with a prompt, from which nothing is learned")


@dataclass(frozen=True)
class Empty:
    """Looks for text on both sides of a row."""

    def remarks(self, row: CheckedRow) -> Iterator[tuple[Remark, str]]:
        empty = [place for place, turn in enumerate(row.turns) if not _says(turn.text)]
        if len(empty) == len(row.turns):
            yield NO_TEXT, ""
            return
        if not row.conversations:
            return
        if not _says(row.prompt):
            yield NO_PROMPT, ""
        unanswered = [row.turns[place].role for place in empty if row.turns[place].side != "the prompt"]
        if not _says(row.answer) or (len(row.conversations) > 1 and unanswered):
            yield NO_ANSWER, ", ".join(role for role in unanswered if role != "assistant")
        elif _says(row.prompt) and len(row.conversations) == 1:
            messages = row.conversations[0]
            if any(_is_missed(messages[place]) for place in empty):
                yield NO_MESSAGE, ""
            if messages[-1]["role"] == "user":
                yield OPEN_END, ""


def _is_missed(message: Message) -> bool:
    """Whether a message without text should have had one."""
    return message["role"] != "tool" and message.get("train") is not False


def _says(text: str) -> bool:
    return bool(text) and not text.isspace()
