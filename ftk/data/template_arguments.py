"""Arguments of a chat template, such as `enable_thinking`: which it reads, and where they are kept with a model."""

from collections.abc import Collection, Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from ftk.core.errors import DataError
from ftk.core.types import TEMPLATE_ARGUMENTS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

GIVEN = frozenset({"messages", "tools", "documents", "add_generation_prompt", "continue_final_message"})
"""What a template is given without being asked for."""


def check_argument_names(arguments: Mapping[str, Any]) -> None:
    """
    Raises:
        ValueError: one of them is what a template is given anyway, or no name.
    """
    for name in arguments:
        if name in GIVEN or not name.isidentifier():
            raise ValueError(f"{name} is no argument of a chat template that a recipe can set")


def check_arguments(text: str, arguments: Mapping[str, Any], *, special_tokens: Collection[str]) -> None:
    """
    Raises:
        DataError: the template with this `text` does not read one of `arguments`, which would then do nothing.
    """
    if not arguments:
        return
    read = sorted(_variables(text) - GIVEN - set(special_tokens))
    for name in arguments:
        if name not in read:
            near = get_close_matches(name, read, n=1)
            hint = f"Did you mean {near[0]}?" if near else "Leave it out"
            raise DataError(
                f"data.template_arguments: the chat template does not read {name}; it reads "
                f"{', '.join(read) or 'none'}. {hint}"
            )


def kept_arguments(tokenizer: "PreTrainedTokenizerBase") -> dict[str, Any]:
    """The arguments that the model's own template was trained with, as far as they are told."""
    kept = tokenizer.init_kwargs.get(TEMPLATE_ARGUMENTS)
    return dict(kept) if isinstance(kept, Mapping) else {}


def _variables(text: str) -> set[str]:
    from jinja2.meta import find_undeclared_variables
    from transformers.utils.chat_template_utils import _compile_jinja_template

    environment = _compile_jinja_template(text).environment
    return set(find_undeclared_variables(environment.parse(text))) - set(environment.globals)
