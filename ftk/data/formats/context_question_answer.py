"""`context_question_answer`: a question, the documents that answer it, and the answer."""

from typing import Any, NamedTuple

from ftk.data.formats.format import Format, FormatError, Reading, Row, Writer, assistant, said, text, user
from ftk.data.retrieval import laid_out

NAME = "context_question_answer"


class Documents(NamedTuple):
    """The documents of a row."""

    context: tuple[str, ...]
    """Those that answer the question."""
    distractors: tuple[str, ...]
    """Those that do not."""


def read(row: Row) -> Reading:
    """The user's message shows the right documents, then the question; `data.retrieval` says it otherwise."""
    question = text(row["question"], "the question")
    return Reading([user(laid_out(read_documents(row).context, question)), assistant(row["answer"])], [])


def read_documents(row: Row) -> Documents:
    """`context` and `distractors` are each a text or a list of texts; an empty one is none.

    Raises:
        FormatError: they are something else.
    """
    return Documents(_texts(row["context"], "context"), _texts(row.get("distractors"), "distractors"))


def write(reading: Reading) -> dict[str, Any]:
    """The whole prompt is the question; the context stays empty, since nothing says where one would end."""
    question, answer = reading.messages
    return {"context": "", "question": said(question), "answer": said(answer)}


def _texts(value: Any, name: str) -> tuple[str, ...]:
    if value is None or isinstance(value, str):
        value = [value] if value else []
    if not isinstance(value, list | tuple) or not all(isinstance(one, str) for one in value):
        kind = f"a list with {next(one for one in value if not isinstance(one, str))!r:.40}" if _is_list(value) else ""
        raise FormatError(f"{name} is {kind or type(value).__name__}, expected a text or a list of texts")
    return tuple(one for one in value if one.strip())


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)


CONTEXT_QUESTION_ANSWER = Format(
    name=NAME,
    needs=("context", "question", "answer"),
    takes=("distractors",),
    read=read,
    writer=Writer(write, system="none", turns="one", tools=False),
    text_or_list=("context", "distractors"),
)
