"""Choices as the text of a recipe, with the reason above each."""

import textwrap
from collections.abc import Sequence
from typing import Any

import yaml

from ftk.runs.advising.choices import Choice

WIDTH = 116


def recipe_text(head: Sequence[str], choices: Sequence[Choice]) -> str:
    """YAML with a comment above each value that has a reason; sections in the order of the choices."""
    lines = [f"# {line}".rstrip() for line in head]
    open_section: str | None = None
    for choice in choices:
        section, _, key = choice.path.partition(".")
        if section != open_section:
            lines.append("")
            open_section = section
            if key:
                lines.append(f"{section}:")
        indent = "  " if key else ""
        lines += textwrap.wrap(
            choice.reason or "", WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# "
        )
        lines.append(f"{indent}{key or section}: {flow(choice.value)}")
    return "\n".join(lines) + "\n"


def flow(value: Any) -> str:
    """A value in one line of YAML."""
    if isinstance(value, float) and value < 1e-2:
        return f"{value:.1e}"
    written = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=10**6)
    return written.removesuffix("\n").removesuffix("\n...").strip()
