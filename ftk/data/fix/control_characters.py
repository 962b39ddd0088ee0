"""`control_characters`: what no one sees, and a tokenizer does."""

import re

from ftk.data.fix.text_fix import Text, TextFix

_LINE_ENDS = re.compile("\r\n|[\r\v\f\x1c\x1d\x1e\x85\u2028\u2029]")
"""Source: the line ends of Unicode (UAX #14, classes BK, CR and NL), and the information separators of ASCII."""
_INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1b\x1f\x7f-\x84\x86-\x9f\xad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff"
    "\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]"
)
"""Control characters, spaces without width, soft hyphens, marks of direction, halves of characters and code points that
are none.

The joiners U+200C and U+200D stay: Persian and emoji are written with them."""
_ASCII_SHOWN = bytes([9, 10, *range(32, 127)])


def fix(text: Text) -> str:
    """Every line end becomes a line feed; what is invisible goes."""
    if text.value.isascii() and not text.value.encode().translate(None, _ASCII_SHOWN):
        return text.value  # 0.6 µs for 500 letters, where the patterns take 37
    return _INVISIBLE.sub("", _LINE_ENDS.sub("\n", text.value))


CONTROL_CHARACTERS = TextFix(
    "control_characters", "line ends become line feeds; control characters and spaces without width go", fix
)
