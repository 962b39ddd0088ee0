"""`whitespace` and `collapse_spaces`: blanks around texts, and within."""

import re

from ftk.data.fix.text_fix import Text, TextFix

_BLANKS = re.compile(r"[^\S\n]+")
_EMPTY_LINES = re.compile(r"\n{3,}")


def stripped(text: Text) -> str:
    """Without blanks where a message begins and ends.

    Where a text goes on in another, as a prompt does in its completion, blanks are part of it; those at the ends of
    lines may be a line break of Markdown.
    """
    value = text.value.lstrip() if text.begins else text.value
    return value.rstrip() if text.ends else value


def collapsed(text: Text) -> str:
    """One space for several, and one empty line for several; takes indentation away, so not for code."""
    return _EMPTY_LINES.sub("\n\n", re.sub(r" ?\n ?", "\n", _BLANKS.sub(" ", text.value)))


WHITESPACE = TextFix("whitespace", "blanks around a message go", stripped)
COLLAPSE_SPACES = TextFix("collapse_spaces", "one space for several, one empty line for several", collapsed, True)
