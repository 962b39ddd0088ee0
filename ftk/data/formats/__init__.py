"""Row formats: one file each, and one line here."""

from collections.abc import Collection, Mapping
from difflib import get_close_matches
from typing import Any

from ftk.data.formats.alpaca import ALPACA
from ftk.data.formats.context_question_answer import CONTEXT_QUESTION_ANSWER
from ftk.data.formats.format import Format, Reading, ReadingT
from ftk.data.formats.function import function_format, judging_function_format
from ftk.data.formats.gemini import GEMINI
from ftk.data.formats.judgement import Judgement
from ftk.data.formats.messages import MESSAGES
from ftk.data.formats.pairs import PAIRS
from ftk.data.formats.prompt_completion import PROMPT_COMPLETION
from ftk.data.formats.question_answer import QUESTION_ANSWER
from ftk.data.formats.ranked import RANKED
from ftk.data.formats.rated import RATED, RATED_MESSAGES
from ftk.data.formats.sharegpt import SHAREGPT
from ftk.data.formats.unpaired import UNPAIRED

FORMATS: dict[str, Format[Reading]] = {
    # In the order in which `auto` tries them.
    one.name: one
    for one in (MESSAGES, SHAREGPT, ALPACA, PROMPT_COMPLETION, CONTEXT_QUESTION_ANSWER, QUESTION_ANSWER, GEMINI)
}
PREFERENCE_FORMATS: dict[str, Format[Judgement]] = {
    # In the order in which `auto` tries them: sets of pairs carry other columns beside them.
    one.name: one
    for one in (PAIRS, RANKED, RATED, RATED_MESSAGES, UNPAIRED)
}
_ALL: tuple[Format[Any], ...] = (*FORMATS.values(), *PREFERENCE_FORMATS.values())
TEXT_OR_LIST = frozenset(column for one in _ALL for column in one.text_or_list)
"""Columns of any format in which the JSON of a list would be read as a text."""


def check_format(name: str) -> str:
    """`name`, if it is `auto`, a known format or a `module:function`.

    Raises:
        ValueError: it is none of them; with the nearest name.
    """
    known = [*FORMATS, *PREFERENCE_FORMATS]
    if name == "auto" or name in known or ":" in name:
        return name
    near = get_close_matches(name, known, n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise ValueError(f"there is no format {name}, expected auto, {', '.join(known)} or module:function.{hint}")


def format_named(name: str) -> Format[Reading]:
    """The format of conversations of that name, a `module:function` included.

    Raises:
        RecipeError: there is no such function.
    """
    return function_format(name) if ":" in name else FORMATS[name]


def preference_format_named(name: str) -> Format[Judgement]:
    """The format of preference data of that name, a `module:function` included.

    Raises:
        RecipeError: there is no such function.
    """
    return judging_function_format(name, PREFERENCE_FORMATS) if ":" in name else PREFERENCE_FORMATS[name]


def format_of(columns: Collection[str], formats: Mapping[str, Format[ReadingT]]) -> Format[ReadingT] | None:
    """The first of `formats` whose columns are all there."""
    return next((one for one in formats.values() if one.matches(columns)), None)
