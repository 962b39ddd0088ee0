"""Whole modules that are trained beside adapters: embeddings, head and norms, as copies that PEFT saves with them.

Domains with words of their own, and texts much longer than before, ask more of embeddings and norms than an adapter in
the linear modules can give. Source: Chen et al. 2023 (arXiv:2309.12307), section 3.3.
"""

from collections.abc import Sequence
from typing import Any, Literal

from torch import nn

from ftk.core.errors import RecipeError

Also = Literal["embeddings", "head", "norms"]

COPIES = ".modules_to_save."
"""What stands in the names of the copies' parameters: PEFT's wrapper holds a copy for each adapter."""


def modules_beside(model: Any, also: Sequence[Also]) -> list[str]:
    """Full names of the modules that are trained whole; a head that is the embedding moves with it.

    Raises:
        RecipeError: the model has none of a kind, or it is stored in few bits.
    """
    names = {module: name for name, module in model.named_modules()}
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    chosen: list[nn.Module] = []
    if "embeddings" in also or ("head" in also and is_tied(model)):
        chosen.append(embedding)
    if head is not None and ("head" in also or ("embeddings" in also and is_tied(model))):
        chosen.append(head)
    norms = list(dict.fromkeys(_of_base(names[module]) for module in names if _is_norm(module)))
    for kind, found in (("embeddings", embedding), ("head", head), ("norms", norms)):
        if kind in also and not found:
            raise RecipeError(f"this model has no {kind} that ftk can find. Leave {kind} out", place="tuning.also")
    for module in chosen:
        if not all(parameter.is_floating_point() for parameter in module.parameters()):
            raise RecipeError(
                f"{names[module]} is stored in few bits, which take no gradient. Leave it out, or take "
                "quantization: null",
                place="tuning.also",
            )
    return [*(names[module] for module in chosen), *(norms if "norms" in also else ())]


def trained_whole(model: nn.Module) -> list[str]:
    """Full names, as the base has them, of the modules of which a model's adapter holds copies."""
    names = {
        name.partition(COPIES)[0].removeprefix("base_model.model.")
        for name, _ in model.named_parameters(remove_duplicate=False)
        if COPIES in name
    }
    return sorted(names)


def is_tied(model: Any) -> bool:
    """Whether the head's weight is the embedding's."""
    head = model.get_output_embeddings()
    return head is not None and _own(head).weight is _own(model.get_input_embeddings()).weight


def peft_ties(modules: Sequence[str], model: Any) -> bool:
    """Whether PEFT keeps the copies of a tied head and its embedding one weight by itself, also where it loads them.

    It knows embeddings by a few names alone. GPT-2's it saves and loads as two weights that are equal.
    """
    from peft.utils.constants import EMBEDDING_LAYER_NAMES

    embedding = next(name for name, module in model.named_modules() if module is model.get_input_embeddings())
    return is_tied(model) and embedding in modules and embedding.rsplit(".", 1)[-1] in EMBEDDING_LAYER_NAMES


def tie_copies(model: Any) -> None:
    """Make the copies of a tied head and its embedding one weight again, where both are trained.

    Args:
        model: the transformers model inside PEFT's wrapper.
    """
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    if not (_is_wrapped(embedding) and _is_wrapped(head) and is_tied(model)):
        return
    for name, copy in head.modules_to_save.items():
        source = embedding.modules_to_save[name]
        # Of an adapter that was made with two weights, each goes on by itself.
        if copy.weight is not source.weight and bool((copy.weight == source.weight).all()):
            copy.weight = source.weight


def _of_base(name: str) -> str:
    """The name that a module has in the base, of the one in PEFT's wrapper or its copy."""
    return name.partition(COPIES)[0].removesuffix(".original_module")


def _own(module: Any) -> Any:
    """The base's module, whatever PEFT wrapped around it."""
    return module.original_module if _is_wrapped(module) else module


def _is_wrapped(module: Any) -> bool:
    from peft.utils.other import ModulesToSaveWrapper

    return isinstance(module, ModulesToSaveWrapper)


def _is_norm(module: nn.Module) -> bool:
    """Whether it normalises, with a weight of its own: by its class, as every architecture brings its own."""
    return "norm" in type(module).__name__.lower() and any(
        parameter.ndim == 1 for parameter in module.parameters(recurse=False)
    )
