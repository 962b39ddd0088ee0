"""`pairs`: a chosen answer and a rejected one."""

from ftk.data.formats.format import Format, Row
from ftk.data.formats.judgement import Judgement, answer
from ftk.data.formats.messages import read_tools


def read(row: Row) -> Judgement:
    """`chosen` and `rejected` are texts or messages after `prompt`, or whole conversations that begin alike."""
    chosen = answer(row, row["chosen"], name="chosen", rating=1.0)
    rejected = answer(row, row["rejected"], name="rejected", rating=0.0)
    return Judgement([chosen, rejected], read_tools(row.get("tools")))


PAIRS = Format(
    name="pairs",
    needs=("chosen", "rejected"),
    takes=("prompt", "tools"),
    read=read,
    text_or_list=("prompt", "chosen", "rejected"),
)
