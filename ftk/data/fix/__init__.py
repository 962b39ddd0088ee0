"""What `ftk data fix` mends: one file each, and one line here."""

from ftk.data.fix import duplicates, empty
from ftk.data.fix.control_characters import CONTROL_CHARACTERS
from ftk.data.fix.lower_case import LOWER_CASE
from ftk.data.fix.mojibake import MOJIBAKE
from ftk.data.fix.text_fix import TextFix
from ftk.data.fix.unicode import COMPATIBILITY, UNICODE
from ftk.data.fix.whitespace import COLLAPSE_SPACES, WHITESPACE

TEXT_FIXES: dict[str, TextFix] = {
    # In the order in which they are applied: each leaves what the ones before have mended mended.
    one.name: one
    for one in (MOJIBAKE, CONTROL_CHARACTERS, COMPATIBILITY, LOWER_CASE, UNICODE, COLLAPSE_SPACES, WHITESPACE)
}
ROW_FIXES: dict[str, str] = {"empty": empty.ABOUT, "duplicates": duplicates.ABOUT}
"""Which whole rows go, after their texts are mended; `near_duplicates` goes last, and only when asked."""
MECHANICAL = (*(name for name, one in TEXT_FIXES.items() if not one.when_asked), *ROW_FIXES)
"""What changes no meaning, and is applied unless it is skipped."""
