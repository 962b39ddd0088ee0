"""The chat template of a merged model."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ftk.core.errors import RecipeError
from ftk.data.template_text import SHIPPED_FOLDER, shipped_templates
from ftk.runs.merging.companions import TOKENIZER_CONFIG

TEMPLATE = "chat_template.jinja"


def chosen_template(asked: str | None, folders: Sequence[Path]) -> str | None:
    """The text of a chat template: a shipped one, the models' most common for `auto`, or the text itself.

    Raises:
        RecipeError: there is no such template.
    """
    if asked is None:
        return None
    if asked == "auto":
        found = Counter(text.strip() for folder in folders if (text := _own_template(folder)) is not None)
        return found.most_common(1)[0][0] if found else None
    if asked in shipped_templates():
        return (SHIPPED_FOLDER / f"{asked}.jinja").read_text(encoding="utf-8")
    if "{" not in asked:
        raise RecipeError(
            f"chat_template is {asked!r}, expected auto, one of {', '.join(shipped_templates())}, or the text of a "
            "Jinja template"
        )
    return asked


def write_chat_template(out: Path, text: str) -> None:
    """Give the output's tokenizer a chat template in place of its own."""
    (out / TEMPLATE).write_text(text, encoding="utf-8")
    settings = out / TOKENIZER_CONFIG
    if settings.exists():
        values = json.loads(settings.read_bytes())
        if values.pop("chat_template", None) is not None:
            settings.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _own_template(folder: Path) -> str | None:
    if (folder / TEMPLATE).exists():
        return (folder / TEMPLATE).read_text(encoding="utf-8")
    settings = folder / TOKENIZER_CONFIG
    found = json.loads(settings.read_bytes()).get("chat_template") if settings.exists() else None
    if isinstance(found, list):
        found = next((one["template"] for one in found if one.get("name") == "default"), None)
    return found if isinstance(found, str) else None
