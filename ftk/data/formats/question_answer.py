"""`question_answer`: one question and one answer."""

from ftk.data.formats.format import Format, Reading, Row, assistant, user


def read(row: Row) -> Reading:
    """The question is the user's message, the answer the assistant's."""
    return Reading([user(row["question"]), assistant(row["answer"])], [])


QUESTION_ANSWER = Format(name="question_answer", needs=("question", "answer"), read=read)
