"""How PEFT names the tensors of an adapter."""

import re

PREFIX = "base_model.model."
PARTS = (
    "lora_A.weight",
    "lora_B.weight",
    "lora_B.bias",
    "lora_embedding_A",
    "lora_embedding_B",
    "lora_magnitude_vector",
    "lora_magnitude_vector.weight",
    "ia3_l",
    "vera_lambda_b",
    "vera_lambda_d",
    "token_adapter.trainable_tokens_delta",
    "trainable_tokens_delta",
)
PROJECTIONS = ("base_model.vera_A", "base_model.vera_B")


def split_name(name: str) -> tuple[str, str | None]:
    """Module and part of an adapter's tensor; part is None for a parameter that is there whole."""
    for part in PARTS:
        if name.endswith(f".{part}"):
            return name[: -len(part) - 1], part
    return name, None


def is_known(name: str) -> bool:
    """Whether a tensor of an adapter is one that ftk folds."""
    if split_name(name)[1] is not None or name in PROJECTIONS:
        return True
    return not re.search(r"\.(lora_|vera_|ia3_|adapter_|hada_|oft_|boft_)", name)
