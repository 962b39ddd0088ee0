"""Rows that ask and have no answer yet."""

from ftk.data.formats.format import FormatError
from ftk.data.formats.messages import from_json
from ftk.data.source import SourceRow

ANSWER_OF = {"question": "answer", "prompt": "completion", "instruction": "output"}
"""The column of the answer to what stands in another one."""
TO_COME = "to come"


def with_an_answer(row: SourceRow) -> SourceRow:
    """The row as formats read it: where it has no answer, `to come` stands in its place.

    Questions alone are `question`, `prompt` or `instruction` without its other half, and `messages` that end with one.
    """
    columns = dict(row.columns)
    for question, answer in ANSWER_OF.items():
        if question in columns and not columns.get(answer):
            columns[answer] = TO_COME
    if "messages" in columns:
        try:
            messages = from_json(columns["messages"])
        except FormatError:
            return row  # told where it is read
        if isinstance(messages, list) and messages and isinstance(messages[-1], dict):
            is_asked = messages[-1].get("role") in ("user", "system")
            columns["messages"] = [*messages, {"role": "assistant", "content": TO_COME}] if is_asked else messages
    return row._replace(columns=columns)
