"""Going on with the adapter that a model folder brings: the same weights learn further, and are written again."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import nn

from ftk.core.errors import RecipeError
from ftk.tuning.beside import tie_copies, trained_whole

if TYPE_CHECKING:
    from peft import PeftModel


def continue_lora(
    model: "PeftModel", wanted: Mapping[str, Any], *, modules: set[str] | None, beside: set[str] | None
) -> "PeftModel":
    """The model with its own adapter, whose weights take gradients as when it was made.

    An adapter is written without its base, so what is learned has to lie in the one that the base goes with.

    Args:
        model: a base with one LoRA adapter, as loaded to be used.
        wanted: what the recipe says of `rank`, `alpha`, `rslora`, `dora` and `dropout`; left out where it is silent.
            All but the dropout are settled by the adapter.
        modules: full names of the modules that shall have an adapter; None where the recipe is silent.
        beside: full names of the modules that shall be trained whole beside it; None where the recipe is silent.

    Raises:
        RecipeError: the adapter is of another kind, or was made with other settings than are wanted.
    """
    from peft import PeftType
    from peft.tuners.lora.layer import LoraLayer, ParamWrapper

    name = str(model.active_adapter)
    config: Any = model.peft_config[name]
    if config.peft_type != PeftType.LORA:
        raise RecipeError(
            f"the model is an adapter of kind {config.peft_type.value.lower()}, with which tuning: lora cannot go on. "
            "Merge it into its base first, or take tuning: full, which does",
            place="tuning",
        )
    own = {"rank": config.r, "alpha": config.lora_alpha, "rslora": config.use_rslora, "dora": config.use_dora}
    for setting, value in own.items():
        if wanted.get(setting, value) != value:
            raise _settled(f"tuning.{setting}", wanted[setting], value)
    layers = {
        layer: module
        for layer, module in model.base_model.model.named_modules()
        # Adapters on fused experts have no dropout, and no module of their own.
        if isinstance(module, LoraLayer) and not isinstance(module, ParamWrapper)
    }
    if modules is not None and modules != set(layers):
        shown = ", ".join(sorted({layer.rsplit(".", 1)[-1] for layer in layers}))
        raise _settled("tuning.target_modules", f"{len(modules)} modules", f"{len(layers)} ({shown})")
    own_beside = set(trained_whole(model))
    if beside is not None and beside != own_beside:
        raise _settled("tuning.also", _listed(beside), _listed(own_beside))
    tie_copies(model.base_model.model)
    if "dropout" in wanted:
        config.lora_dropout = wanted["dropout"]
        for module in layers.values():
            module.lora_dropout[name] = nn.Dropout(config.lora_dropout) if config.lora_dropout else nn.Identity()
    config.inference_mode = False
    model.set_adapter(name)
    return model


def _listed(modules: set[str]) -> str:
    return ", ".join(sorted({name.rsplit(".", 1)[-1] for name in modules})) or "nothing"


def _settled(place: str, wanted: object, own: object) -> RecipeError:
    return RecipeError(
        f"the recipe says {wanted}, and the model is an adapter made with {own}, which goes on to be trained. Leave "
        "the setting out, or start from a merged model for a new adapter",
        place=place,
    )
