"""`unpaired`: one answer, and whether it is a good one."""

from typing import Any

from ftk.data.formats.format import Format, FormatError, Row
from ftk.data.formats.judgement import Judgement, answer
from ftk.data.formats.messages import read_tools

LABELS = {"true": True, "1": True, "false": False, "0": False}


def read(row: Row) -> Judgement:
    """`completion` is a text or messages after `prompt`, or a whole conversation; `label` is true or false."""
    found = answer(row, row["completion"], name="completion")
    return Judgement([found], read_tools(row.get("tools")), _label(row["label"]))


def _label(value: Any) -> bool:
    label = LABELS.get(str(value).strip().lower().removesuffix(".0"))
    if label is None:
        raise FormatError(f"label is {value!r}, expected true or false (or 1 or 0)")
    return label


UNPAIRED = Format(
    name="unpaired",
    needs=("completion", "label"),
    takes=("prompt", "tools"),
    read=read,
    text_or_list=("prompt", "completion"),
)
