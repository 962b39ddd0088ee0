"""`question_answer`: one question and one answer."""

from typing import Any

from ftk.data.formats.format import Format, Reading, Row, Writer, assistant, said, user


def read(row: Row) -> Reading:
    """The question is the user's message, the answer the assistant's."""
    return Reading([user(row["question"]), assistant(row["answer"])], [])


def write(reading: Reading) -> dict[str, Any]:
    """Takes one question and its answer."""
    question, answer = reading.messages
    return {"question": said(question), "answer": said(answer)}


QUESTION_ANSWER = Format(
    name="question_answer",
    needs=("question", "answer"),
    read=read,
    writer=Writer(write, system="none", turns="one", tools=False),
)
