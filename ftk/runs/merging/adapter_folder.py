"""An adapter's folder as PEFT has it: found, and written."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ftk.core.errors import ModelError
from ftk.core.weight_files import ADAPTER_WEIGHTS
from ftk.merging.adapters.adapter import CONFIG
from ftk.models.extend import CONTEXT_FILE
from ftk.models.locate import locate, model_folder
from ftk.models.settings import ModelSettings


def find_adapter(name: str, *, revision: str | None = None) -> Path:
    """The folder of an adapter: a folder, a run, or a hub id, of which it is downloaded where it is not yet.

    Raises:
        ModelError: it is not there, or is a whole model.
    """
    path = Path(name).expanduser()
    # A local adapter may be folded into another base than the one it names, which need not be there.
    if path.exists():
        folder = model_folder(path)
        found = folder if (folder / CONFIG).exists() else None
    else:
        folder = path
        found = locate(ModelSettings(id=name, revision=revision)).adapter_folder
    if found is None:
        raise ModelError(
            f"{folder} is a whole model, not an adapter: there is nothing to fold into a base. A model whose weights "
            "were trained themselves (full or partial tuning) is used as it is. Models are merged with others by a "
            "file: ftk merge merge.yaml --out FOLDER"
        )
    return found


def write_adapter(
    folder: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor], *, context: Mapping[str, Any] | None = None
) -> None:
    """Write an adapter as PEFT does, and beside it the positions that it needs its base to have."""
    from safetensors.torch import save_file

    save_file(
        {name: tensor.contiguous() for name, tensor in tensors.items()},
        folder / ADAPTER_WEIGHTS,
        metadata={"format": "pt"},
    )
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    if context is not None:
        (folder / CONTEXT_FILE).write_text(json.dumps(context, indent=2) + "\n", encoding="utf-8")
