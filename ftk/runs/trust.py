"""Python code that comes with a model: off unless the recipe says so, and then said aloud."""

from collections.abc import Callable

from ftk.core.tell import tell
from ftk.models.settings import ModelSettings


def tell_of_code(model: ModelSettings, say: Callable[[str], None] = tell) -> None:
    """Say, before any of it runs, that code of others will."""
    if model.trust_remote_code:
        say(f"model.trust_remote_code is on: Python code that comes with {model.id} runs on this machine")
