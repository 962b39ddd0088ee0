"""`lower_case`: every letter small."""

from ftk.data.fix.text_fix import Text, TextFix


def fix(text: Text) -> str:
    """Names, acronyms and code lose what their capitals say."""
    return text.value.lower()


LOWER_CASE = TextFix("lower_case", "every letter becomes small", fix, True)
