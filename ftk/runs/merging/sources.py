"""The models of a merge: found, their headers read, adapters folded into their base first."""

import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from ftk.core.atomic import SUFFIX
from ftk.core.errors import ModelError
from ftk.core.weight_files import weight_files
from ftk.merging.configuration import ModelName
from ftk.merging.open_model import OpenModel
from ftk.merging.stream import Checkpoint
from ftk.models.locate import ModelPlace, locate
from ftk.models.settings import ModelSettings
from ftk.runs.merging.adapter_folder import find_adapter
from ftk.runs.merging.configuration import read_config

Fold = Callable[[Path, Path], Path]
"""Folders of base and adapter to the folder of the model that they make together."""


@dataclass(frozen=True)
class MergeSource:
    """One model of a merge."""

    place: ModelPlace
    model: OpenModel
    adapter_folder: Path | None = None
    """Of the adapter that was folded into it."""

    @property
    def folder(self) -> Path:
        """Where its weights are, and its configuration."""
        return self.model.checkpoint.folder

    @property
    def tokenizer_folder(self) -> Path:
        """Where its tokenizer is; an adapter may bring one."""
        is_folded = self.folder != self.place.folder
        return self.folder if is_folded else self.place.tokenizer_folder

    @property
    def read_folders(self) -> list[Path]:
        """Where the model was found, and its adapter."""
        return [self.place.folder, *([self.adapter_folder] if self.adapter_folder is not None else [])]

    @property
    def files(self) -> list[Path]:
        """Files of weights where it was found, not those that an adapter was folded into."""
        return [file for folder in self.read_folders for file in weight_files(folder)]


def open_source(name: ModelName, *, fold: Fold | None) -> MergeSource:
    """Find a model and read its headers.

    Args:
        name: as the merge names it; it may be an adapter's folder or bring one.
        fold: makes a model of an adapter; None takes the base in its place, whose tensors have the same shapes.

    Raises:
        ModelError: it is not to be had, its weights are broken or in few bits, or its adapter cannot be folded.
    """
    place = locate(ModelSettings(id=name.id, revision=name.revision))
    folder, adapter_folder = place.folder, place.adapter_folder
    if name.adapter is not None:
        adapter_folder = find_adapter(name.adapter, revision=name.adapter_revision)
    if adapter_folder is not None and fold is not None:
        folder = fold(place.folder, adapter_folder)
    config = read_config(folder)
    if "quantization_config" in config:
        method = config["quantization_config"].get("quant_method", "few bits")
        raise ModelError(
            f"the weights of {name} are quantized ({method}), and packed integers cannot be averaged. Merge the model "
            "that it was quantized from"
        )
    return MergeSource(place, OpenModel(name, Checkpoint(folder), config), adapter_folder)


def folding(out: Path, stack: ExitStack) -> Fold:
    """Folds adapters into folders beside `out` that go when the stack closes."""

    def fold(base: Path, adapter: Path) -> Path:
        from ftk.runs.merging.adapters import merge_adapters

        # Called as an unfinished `out` is, so that the next run removes it where this one is killed.
        prefix = f".{out.name}{SUFFIX}{os.getpid()}-"
        out.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(stack.enter_context(TemporaryDirectory(prefix=prefix, dir=out.parent)), "model")
        merge_adapters(str(base), [str(adapter)], out=folder, verify=False)
        return folder

    return fold
