"""`rated` and `rated_messages`: several answers to one prompt, each with a rating."""

from collections.abc import Mapping, Sequence
from typing import Any

from ftk.data.formats.format import Format, FormatError, Row
from ftk.data.formats.judgement import Answer, Judgement, answer, number
from ftk.data.formats.messages import from_json, read_tools

ANSWER_KEYS = ("completion", "response", "content", "text", "messages")
RATING_KEYS = ("rating", "score", "overall_score")


def read(row: Row) -> Judgement:
    """`completions` is a list of `{completion, rating}`, or of answers beside a list of `ratings`.

    As UltraFeedback has it, the prompt may be called `instruction`, an answer `response` and its rating
    `overall_score`; of an empty list nothing is learned.
    """
    if "prompt" not in row and "instruction" in row:
        row = {**row, "prompt": row["instruction"]}
    completions, ratings = _list(row["completions"], "completions"), row.get("ratings")
    if ratings is None:
        answers = [_answer(row, value, place) for place, value in enumerate(completions, start=1)]
        return Judgement(answers, read_tools(row.get("tools")))
    ratings = _list(ratings, "ratings")
    if len(ratings) != len(completions):
        raise FormatError(f"there are {len(completions)} completions and {len(ratings)} ratings")
    answers = [
        answer(row, value, name=f"answer {place}", rating=number(rating, f"rating {place}"))
        for place, (value, rating) in enumerate(zip(completions, ratings, strict=True), start=1)
    ]
    return Judgement(answers, read_tools(row.get("tools")))


def read_messages_row(row: Row) -> Judgement:
    """`messages` is a whole conversation and `rating` that of its last answer; rows with one prompt are compared."""
    rated = answer({}, from_json(row["messages"]), name="messages", rating=number(row["rating"], "rating"))
    return Judgement([rated], read_tools(row.get("tools")))


def _answer(row: Row, value: Any, place: int) -> Answer:
    name = f"answer {place}"
    found = value if isinstance(value, Mapping) else {}
    content = next((key for key in ANSWER_KEYS if key in found), None)
    rating = next((key for key in RATING_KEYS if key in found), None)
    if content is None or rating is None:
        has = f"has {', '.join(found)}" if found else f"is {type(value).__name__}"
        raise FormatError(
            f"{name} {has}, expected an object with an answer ({' or '.join(ANSWER_KEYS)}) and its rating "
            f"({' or '.join(RATING_KEYS)}), or a list of ratings beside completions"
        )
    return answer(row, found[content], name=name, rating=number(found[rating], f"{name}: {rating}"))


def _list(value: Any, name: str) -> Sequence[Any]:
    value = from_json(value)
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise FormatError(f"{name} is not a list")
    return value


RATED = Format(
    name="rated",
    needs=("completions",),
    takes=("prompt", "instruction", "ratings", "tools"),
    read=read,
    text_or_list=("prompt",),
)
RATED_MESSAGES = Format(name="rated_messages", needs=("messages", "rating"), takes=("tools",), read=read_messages_row)
