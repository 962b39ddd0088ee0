"""`mojibake`: UTF-8 that was once read as Windows-1252, such as `Ã©` for `é`."""

import re

from ftk.data.fix.text_fix import Text, TextFix


def _misread(byte: int) -> str:
    """The character as which a byte is misread; Windows-1252 leaves five bytes undefined, and programs let them be."""
    try:
        return bytes([byte]).decode("cp1252")
    except UnicodeDecodeError:
        return chr(byte)


_BYTE_OF = {_misread(byte): byte for byte in range(0x80, 0x100)}
_NEXT = "[" + "".join(re.escape(_misread(byte)) for byte in range(0x80, 0xC0)) + "]"
_MISREAD = re.compile(f"[\u00c2-\u00df]{_NEXT}|[\u00e0-\u00ef]{_NEXT}{{2}}|[\u00f0-\u00f4]{_NEXT}{{3}}")
"""Bytes of UTF-8 beyond ASCII: how many follow is what the first one says."""


def fix(text: Text) -> str:
    """Only when asked: `É“` may be meant."""
    return _MISREAD.sub(_reread, text.value)


def _reread(match: re.Match[str]) -> str:
    try:
        return bytes(_BYTE_OF[letter] for letter in match[0]).decode("utf-8")
    except UnicodeDecodeError:
        return match[0]


MOJIBAKE = TextFix("mojibake", "UTF-8 that was read as Windows-1252 is read again: Ã© becomes é", fix, True)
