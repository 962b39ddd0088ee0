"""config.json of a merged model."""

import json
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from ftk.core.errors import ModelError
from ftk.merging.safetensors_file import TensorSpec
from ftk.models.locate import CONFIG

END_TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")
_INNER = ("text_config", "llm_config")
"""Where models with several parts keep the language model's configuration."""


def read_config(folder: Path) -> dict[str, Any]:
    """The config.json of a model.

    Raises:
        ModelError: it cannot be read.
    """
    try:
        found: dict[str, Any] = json.loads((folder / CONFIG).read_bytes())
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder / CONFIG} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise ModelError(f"{folder / CONFIG} is no configuration: expected a JSON object")
    return found


def merged_config(
    config: Mapping[str, Any],
    *,
    dtype: torch.dtype | None = None,
    num_tokens: int | None = None,
    untied: bool = False,
    tokens_of: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The configuration of a model, with what a merge changes.

    Args:
        config: of the model that the others are merged into.
        dtype: of most weights; None leaves what is there.
        num_tokens: rows of the embedding; None leaves what is there.
        untied: whether the head no longer is the embedding.
        tokens_of: configuration of the model whose tokenizer the output has, if that is another.
    """
    changed: dict[str, Any] = json.loads(json.dumps(config))
    sections = [changed, *(changed[name] for name in _INNER if isinstance(changed.get(name), dict))]
    if dtype is not None:
        changed.pop("quantization_config", None)
        changed["torch_dtype" if "torch_dtype" in changed else "dtype"] = str(dtype).removeprefix("torch.")
    if tokens_of is not None:
        changed |= {key: tokens_of[key] for key in END_TOKENS if key in tokens_of}
    for section in sections:
        if num_tokens is not None and "vocab_size" in section:
            section["vocab_size"] = num_tokens
        if untied and (section is changed or "tie_word_embeddings" in section):
            section["tie_word_embeddings"] = False
    return changed


def most_common_dtype(specs: Iterable[TensorSpec]) -> torch.dtype:
    """The dtype that most bytes of the weights have."""
    num_bytes = Counter[torch.dtype]()
    for spec in specs:
        num_bytes[spec.dtype] += spec.num_bytes
    return num_bytes.most_common(1)[0][0]


def write_config(out: Path, config: Mapping[str, Any], *, original: Path) -> None:
    """Write config.json into `out`; a copy of the one in the folder `original` where nothing changed."""
    if read_config(original) == config:
        shutil.copyfile(original / CONFIG, out / CONFIG)
    else:
        (out / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
