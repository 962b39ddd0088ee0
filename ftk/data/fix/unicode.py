"""`unicode` and `compatibility`: one spelling for each character.

Source: Unicode Standard Annex #15, normalization forms NFC and NFKC.
"""

import unicodedata

from ftk.data.fix.text_fix import Text, TextFix


def composed(text: Text) -> str:
    """NFC: a letter and its accent become one character, which looks and means the same."""
    return unicodedata.normalize("NFC", text.value)


def compatible(text: Text) -> str:
    """NFKC: also full-width letters, ligatures, superscripts and special spaces become plain ones."""
    return unicodedata.normalize("NFKC", text.value)


UNICODE = TextFix("unicode", "characters are composed (NFC)", composed)
COMPATIBILITY = TextFix(
    "compatibility", "full-width letters, ligatures, superscripts, special spaces become plain (NFKC)", compatible, True
)
