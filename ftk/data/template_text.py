"""Where the text of a chat template comes from: shipped by name, a Jinja file, or the model's own."""

from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from ftk.core.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SHIPPED_FOLDER = Path(__file__).parent / "templates"


def shipped_templates() -> list[str]:
    """Names of the chat templates that ship with ftk."""
    return sorted(path.stem for path in SHIPPED_FOLDER.glob("*.jinja"))


def template_text(name: str | None, tokenizer: "PreTrainedTokenizerBase") -> str:
    """The text of the template that a recipe names, or of the model's own where it names none.

    Raises:
        DataError: no such template, not UTF-8, or the model has none of its own.
    """
    if name is None:
        return _own_template(tokenizer)
    if name in shipped_templates():
        return (SHIPPED_FOLDER / f"{name}.jinja").read_text(encoding="utf-8")
    path = Path(name).expanduser()
    if not path.is_file():
        names = shipped_templates()
        near = get_close_matches(name, names, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise DataError(
            f"data.chat_template: {name} is neither a shipped template ({', '.join(names)}) nor a Jinja file.{hint}"
        )
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError("the chat template is not UTF-8 text", place=name) from error


def _own_template(tokenizer: "PreTrainedTokenizerBase") -> str:
    try:
        return str(tokenizer.get_chat_template())
    except ValueError as error:
        raise DataError(
            f"{tokenizer.name_or_path or 'the model'} has no chat template of its own. Name one in data.chat_template: "
            f"{', '.join(shipped_templates())}, or a Jinja file"
        ) from error
