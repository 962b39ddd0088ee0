"""A model to be used as it is: loaded for evaluation, generation or chat."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ftk.models.load import load_model, load_tokenizer
from ftk.models.settings import ModelSettings
from ftk.quantization import Quantization
from ftk.runs.quiet import quieten
from ftk.train.group import best_device
from ftk.train.precision import FROZEN_DTYPES, resolve_precision

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

RECIPE_FILE = "recipe.yaml"
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class ReadyModel:
    """A model on its device, with its tokenizer."""

    causal_lm: Any
    tokenizer: "PreTrainedTokenizerBase"

    @property
    def pad_token_id(self) -> int:
        """What fills rows up; it is never looked at, so any token will do where the tokenizer has none for it."""
        pad = self.tokenizer.pad_token_id
        return int(pad) if pad is not None else 0


def load_ready_model(settings: ModelSettings, *, quantization: Quantization | None = None) -> ReadyModel:
    """Load a model onto an accelerator where there is one, in 16 bits where that computes in them.

    Raises:
        ModelError: there is no such model, or it cannot be used.
        SetupError: a package is missing that it needs.
    """
    quieten()
    device = best_device()
    tokenizer = load_tokenizer(settings)
    dtype = _DTYPES.get(settings.dtype) or FROZEN_DTYPES[resolve_precision("auto", device)]
    quantized = quantization.loading_config(dtype) if quantization is not None else None
    model = load_model(settings, dtype=dtype, device=device, quantization_config=quantized)
    return ReadyModel(model.eval(), tokenizer)


def recipe_beside(model: str) -> Path | None:
    """The recipe that made a model: of a run folder, of the `model` in it, or of one of its checkpoints."""
    path = Path(model).expanduser()
    if not path.is_dir():
        return None
    # Resolved, so that `.` has parents too.
    folders = (path, *path.resolve().parents[:2])
    return next((folder / RECIPE_FILE for folder in folders if (folder / RECIPE_FILE).is_file()), None)
