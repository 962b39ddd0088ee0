"""Parts of models with several, such as an encoder and a decoder, by the names that mergekit gives them."""

from collections.abc import Sequence

from ftk.core.errors import RecipeError

ALIASES = {
    "multi_modal_projector": ("multi_modal_projector", "merger", "mm_projector"),
    "vision_tower": ("vision_tower", "visual", "vision_model"),
    "text_decoder": ("language_model", "text_model"),
}
"""Parts of tensor names by module, the first that fits. Other modules are called as in the tensors' names."""
WHOLE = "default"
REST = "text_decoder"
"""Has what belongs to no other module."""


def in_module(module: str, names: Sequence[str], modules: Sequence[str]) -> list[str]:
    """The tensors of one module.

    Raises:
        RecipeError: there are none, or a tensor is in none of the modules that the merge names.
    """
    if list(modules) == [WHOLE]:
        return list(names)
    found = [name for name in names if _module_of(name, modules) == module]
    if not found:
        raise RecipeError(f"modules.{module}: no tensor belongs to it. Names are such as {', '.join(names[:3])}")
    lost = [name for name in names if _module_of(name, modules) is None]
    if lost:
        raise RecipeError(
            f"{len(lost)} tensors belong to none of the modules {', '.join(modules)}, such as {lost[0]}. Name all of "
            "the model's parts, or use models in place of modules"
        )
    return found


def _module_of(name: str, modules: Sequence[str]) -> str | None:
    parts = name.split(".")
    for module, words in ALIASES.items():
        if any(word in parts for word in words):
            return module if module in modules else None
    own = next((module for module in modules if module in parts), None)
    if own is not None:
        return own
    return next((module for module in (REST, WHOLE) if module in modules), None)
