"""Rendered rows on disk, under a key that covers all they depend on."""

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from os import environ
from pathlib import Path
from sys import version
from typing import TYPE_CHECKING, Any

import numpy as np

from ftk.core.atomic import atomic_folder
from ftk.core.types import Examples

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_ARRAYS = ("token_ids", "weights", "answers", "offsets", "rows_N", "sources_N")
_COLUMN = "column."
"""Before the name of each of `Examples.columns`."""


def default_cache_folder() -> Path:
    """`$FTK_CACHE`, else `~/.cache/ftk`."""
    return Path(environ.get("FTK_CACHE") or Path.home() / ".cache" / "ftk")


def cache_key(*, tokenizer: "PreTrainedTokenizerBase", template: str, **what: str | float | None) -> str:
    """Digest of the tokenizer, the template, the versions and code that render, and of `what` else matters."""
    import tokenizers
    import transformers

    digest = hashlib.sha256()
    # Python's own parser cuts texts at nodes of its syntax, and each version knows another.
    versions = {"transformers": transformers.__version__, "tokenizers": tokenizers.__version__, "python": version}
    digest.update(json.dumps([what, versions, template, tokenizer.special_tokens_map], sort_keys=True).encode())
    digest.update(tokenizer.backend_tokenizer.to_str().encode())
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        # What another state of this code rendered is not reused.
        digest.update(path.read_bytes())
    return digest.hexdigest()[:32]


def load_examples(folder: Path, key: str) -> tuple[Examples, Mapping[str, Any]] | None:
    """What was saved under `key`, or None."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        facts = json.loads((folder / _name(key) / "facts.json").read_text(encoding="utf-8"))
        arrays = load_file(folder / _name(key) / "examples.safetensors")
        names: dict[str, Any] = {name: arrays[name] for name in _ARRAYS}
        columns = {name.removeprefix(_COLUMN): array for name, array in arrays.items() if name.startswith(_COLUMN)}
        examples = Examples(
            **names, source_names=tuple(facts["source_names"]), branches=arrays.get("branches"), columns=columns
        )
    except (OSError, ValueError, KeyError, SafetensorError):
        return None  # not there, or damaged: rendered again
    return examples, facts


def save_examples(folder: Path, key: str, examples: Examples, facts: Mapping[str, Any]) -> None:
    """Save under `key`; a cache folder that cannot be written is no reason to stop."""
    from safetensors.numpy import save_file

    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_folder(folder / _name(key)) as temporary:
            arrays = {name: np.ascontiguousarray(getattr(examples, name)) for name in _ARRAYS}
            arrays |= {f"{_COLUMN}{name}": np.ascontiguousarray(one) for name, one in examples.columns.items()}
            if examples.branches is not None:
                arrays["branches"] = np.ascontiguousarray(examples.branches)
            save_file(arrays, temporary / "examples.safetensors")
            text = json.dumps({**facts, "source_names": examples.source_names}, ensure_ascii=False)
            (temporary / "facts.json").write_text(text, encoding="utf-8")


def _name(key: str) -> str:
    return f"rendered-{key}"
