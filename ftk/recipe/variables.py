"""`${NAME}` in a recipe takes an environment variable."""

import re
from collections.abc import Mapping

_REFERENCE = re.compile(r"\$\$\{|\$\{(?P<name>[^}]*)\}?")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class VariableError(ValueError):
    """A variable is unset, or what stands in the braces is no name."""


def has_variables(text: str) -> bool:
    """Whether there is anything to fill in or unescape."""
    return "${" in text


def filled(text: str, environment: Mapping[str, str]) -> str:
    """`text` with each `${NAME}` replaced by the variable's value, and each `$${` by a literal `${`.

    Raises:
        VariableError: a variable is unset, or not a name.
    """

    def value(match: re.Match[str]) -> str:
        name = match["name"]
        if name is None:
            return "${"
        if not _NAME.fullmatch(name) or not match[0].endswith("}"):
            raise VariableError(f"{match[0]} does not name an environment variable. Write $${{ for a literal ${{")
        if name not in environment:
            raise VariableError(f"the environment variable {name} is not set. Set it: export {name}=...")
        return environment[name]

    return _REFERENCE.sub(value, text)
