"""Row formats: one file each, and one line here."""

from collections.abc import Collection
from difflib import get_close_matches

from ftk.data.formats.alpaca import ALPACA
from ftk.data.formats.format import Format
from ftk.data.formats.function import function_format
from ftk.data.formats.messages import MESSAGES
from ftk.data.formats.prompt_completion import PROMPT_COMPLETION
from ftk.data.formats.question_answer import QUESTION_ANSWER
from ftk.data.formats.sharegpt import SHAREGPT

FORMATS: dict[str, Format] = {
    # In the order in which `auto` tries them.
    one.name: one
    for one in (MESSAGES, SHAREGPT, ALPACA, PROMPT_COMPLETION, QUESTION_ANSWER)
}


def check_format(name: str) -> str:
    """`name`, if it is `auto`, a known format or a `module:function`.

    Raises:
        ValueError: it is none of them; with the nearest name.
    """
    if name == "auto" or name in FORMATS or ":" in name:
        return name
    near = get_close_matches(name, FORMATS, n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise ValueError(f"there is no format {name}, expected auto, {', '.join(FORMATS)} or module:function.{hint}")


def format_named(name: str) -> Format:
    """The format of that name, a `module:function` included.

    Raises:
        RecipeError: there is no such function.
    """
    return function_format(name) if ":" in name else FORMATS[name]


def format_of(columns: Collection[str]) -> Format | None:
    """The first format whose columns are all there."""
    return next((one for one in FORMATS.values() if one.matches(columns)), None)
