"""`ranked`: several answers to one prompt, the best first."""

from collections.abc import Sequence

from ftk.data.formats.format import Format, FormatError, Row
from ftk.data.formats.judgement import Judgement, answer
from ftk.data.formats.messages import from_json, read_tools


def read(row: Row) -> Judgement:
    """Each of `ranked` is a text or messages after `prompt`, or a whole conversation."""
    ranked = from_json(row["ranked"])
    if not isinstance(ranked, Sequence) or isinstance(ranked, str) or len(ranked) < 2:
        raise FormatError("ranked is not a list with at least two answers, the best first")
    answers = [
        answer(row, value, name=f"answer {place}", rating=-float(place)) for place, value in enumerate(ranked, start=1)
    ]
    return Judgement(answers, read_tools(row.get("tools")))


RANKED = Format(name="ranked", needs=("ranked",), takes=("prompt", "tools"), read=read, text_or_list=("prompt",))
