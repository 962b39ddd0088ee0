"""Which files of a folder hold a model's or an adapter's weights: safetensors, and all of them."""

import json
from collections.abc import Mapping
from pathlib import Path

from ftk.core.errors import ModelError

WEIGHTS, INDEX, ADAPTER_WEIGHTS = "model.safetensors", "model.safetensors.index.json", "adapter_model.safetensors"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_NO_WEIGHTS = "training_args.bin"
"""A pickle that trainers leave beside the weights."""


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a folder.

    Raises:
        ModelError: there are none, files of the index are missing, the index is broken, or there are pickles only.
    """
    index = folder / INDEX
    if index.exists():
        names = sorted(set(weight_map(index).values()))
        missing = [name for name in names if not (folder / name).is_file()]
        if missing:
            raise ModelError(
                f"{folder} lacks {len(missing)} of {len(names)} files of weights: {', '.join(missing[:5])}"
            )
        return [folder / name for name in names]
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    found = sorted(folder.glob("*.safetensors"))
    if found:
        return found
    pickles = sorted(path.name for pattern in PICKLES for path in folder.glob(pattern) if path.name != _NO_WEIGHTS)
    if not pickles:
        raise ModelError(f"{folder} has no weights: expected {WEIGHTS}, or {INDEX} and its files")
    if pickles[0].startswith("adapter"):
        load = f"from peft import AutoPeftModelForCausalLM as M; M.from_pretrained('{folder}')"
    else:
        load = (
            f"from transformers import AutoModelForCausalLM as M; M.from_pretrained('{folder}', use_safetensors=False)"
        )
    raise ModelError(
        f"{folder} holds its weights as a pickle only ({pickles[0]}), which can run any code when it is read. Where "
        f"you trust whoever made it, convert it once to safetensors: python -c \"{load}.save_pretrained('{folder}')\""
    )


def weight_map(index: Path) -> Mapping[str, str]:
    """The file of each tensor, as an index says.

    Raises:
        ModelError: the index is broken.
    """
    try:
        found: Mapping[str, str] = json.loads(index.read_bytes())["weight_map"]
        return dict(found)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{index} is broken: expected JSON with a weight_map. Get it again") from error
