"""Python code that comes with a model: off unless the recipe says so, and then said aloud."""

import sys
from collections.abc import Callable

from ftk.models.settings import ModelSettings


def to_standard_error(sentence: str) -> None:
    """Tell a person."""
    print(sentence, file=sys.stderr)


def tell_of_code(model: ModelSettings, tell: Callable[[str], None] = to_standard_error) -> None:
    """Say, before any of it runs, that code of others will."""
    if model.trust_remote_code:
        tell(f"model.trust_remote_code is on: Python code that comes with {model.id} runs on this machine")
