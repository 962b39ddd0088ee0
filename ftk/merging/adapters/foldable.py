"""Which adapters are a change of weights, and why the others are not."""

from collections.abc import Mapping
from typing import Any

from ftk.core.errors import ModelError

FOLDABLE = ("LORA", "IA3", "VERA", "LN_TUNING", "TRAINABLE_TOKENS")
"""PEFT's names of the kinds that `ftk merge` folds."""

_BEFORE_THE_PROMPT = (
    "it puts learned vectors before the prompt or into the attention's keys and values, which no weight of the base "
    "can stand for. Keep it beside its base"
)
_BETWEEN_LAYERS = (
    "it computes something of its own between the base's layers, with a nonlinearity that no weight of the base has. "
    "Keep it beside its base"
)
_DEPENDS_ON_INPUT = "how much of it acts depends on the input, so no one weight stands for it. Keep it beside its base"
_WHY_NOT = {
    **dict.fromkeys(
        (
            "PROMPT_TUNING",
            "MULTITASK_PROMPT_TUNING",
            "P_TUNING",
            "PREFIX_TUNING",
            "ADAPTION_PROMPT",
            "CPT",
            "CARTRIDGE",
        ),
        _BEFORE_THE_PROMPT,
    ),
    **dict.fromkeys(("BOTTLENECK", "PEANUT"), _BETWEEN_LAYERS),
    **dict.fromkeys(("XLORA", "POLY"), _DEPENDS_ON_INPUT),
}
_VARIANTS = {
    "alora_invocation_tokens": "it acts only after certain tokens, so no one weight stands for it. Keep it beside its "
    "base",
    "arrow_config": _DEPENDS_ON_INPUT,
    "monteclora_config": "its weights are drawn anew at each step. Keep it beside its base",
    **dict.fromkeys(
        ("use_qalora", "use_bdlora", "kasa_config", "velora_config"),
        "ftk does not know this variant of LoRA. PEFT's own merge_and_unload may",
    ),
    "layer_replication": "it repeats layers of its base, which the base's files do not. Write that model out first",
}
_CHANGED_BASES = ("pissa", "corda", "olora", "loftq", "lora_ga")
"""Ways of starting LoRA that take something out of the base's weights as training begins."""


def require_foldable(config: Mapping[str, Any], where: str) -> None:
    """Make sure that an adapter is no more than a change of its base's weights.

    Args:
        config: the adapter's adapter_config.json.
        where: what a message calls the adapter.

    Raises:
        ModelError: it is more, or nothing that ftk knows.
    """
    kind = str(config.get("peft_type", "")).upper()
    if kind not in FOLDABLE:
        reason = _WHY_NOT.get(
            kind, f"ftk folds {', '.join(FOLDABLE)}. PEFT's own merge_and_unload may know what to do with {kind}"
        )
        raise ModelError(f"{where} cannot be folded into its base ({kind or 'no peft_type'}): {reason}")
    for key, reason in _VARIANTS.items():
        if config.get(key):
            raise ModelError(f"{where} cannot be folded into its base ({key}): {reason}")
    start = config.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(_CHANGED_BASES):
        raise ModelError(
            f"{where} cannot be folded into its base (init_lora_weights: {start}): that start takes a part of the "
            "base's weights away, and the adapter goes with what was left. Have PEFT save it as plain LoRA: "
            "save_pretrained(..., path_initial_model_for_weight_conversion=...)"
        )
