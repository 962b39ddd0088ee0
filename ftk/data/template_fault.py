"""What went wrong in a chat template, with the line of the template."""

from traceback import extract_tb

_FILES = ("<template>", "<unknown>")
"""How jinja2 calls the file of a template that came as text: as it runs, and as it is read."""


def told(error: Exception) -> str:
    """What a template's author needs to know of `error`: its words, and the line of the template where it arose."""
    words = str(error)
    if isinstance(error, MemoryError):
        words = "it takes more memory than any conversation needs"
    elif isinstance(error, RecursionError):
        words = "it calls itself without end"
    number = getattr(error, "lineno", None) or _line(error)
    return words if number is None else f"{words} (line {number} of the template)"


def _line(error: Exception) -> int | None:
    lines = [frame.lineno for frame in extract_tb(error.__traceback__) if frame.filename in _FILES]
    return lines[-1] if lines else None
