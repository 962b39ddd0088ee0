"""Where a model's files are: shipped with ftk, in a folder, in a run's folder, or on the hub."""

import difflib
import json
import re
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from ftk.core.errors import ModelError
from ftk.core.weight_files import ADAPTER_WEIGHTS, weight_files
from ftk.models.settings import ModelSettings

SHIPPED = {"ftk://tiny": "tiny"}
CONFIG, ADAPTER_CONFIG = "config.json", "adapter_config.json"
FROM_HUB = ("*.json", "*.safetensors", "*.jinja", "*.model", "*.txt", "README.md")
NOT_FROM_HUB = ("original/*", "consolidated*", "onnx/*", "openvino/*", "coreml/*")
"""Other forms of the same weights that repositories carry beside them."""


@dataclass(frozen=True)
class ModelPlace:
    """A model that is there: its weights are safetensors, and all of them."""

    name: str
    """As the user gave it."""
    folder: Path
    """Folder of the weights; for an adapter, of its base's."""
    reference: str
    """What finds the base again from elsewhere: a hub id, `ftk://tiny`, or a whole path."""
    hub_id: str | None = None
    """Of the base where it came from the hub."""
    revision: str | None = None
    """Commit of the hub id."""
    adapter_folder: Path | None = None
    licence: str | None = None
    """As the model card of the base says."""

    @property
    def tokenizer_folder(self) -> Path:
        """The adapter's folder where it brings a tokenizer, because training may have changed it."""
        own = self.adapter_folder
        return own if own is not None and (own / "tokenizer_config.json").exists() else self.folder


def locate(settings: ModelSettings) -> ModelPlace:
    """Find the model that a recipe or a command names; a hub id is downloaded where it is not yet.

    Raises:
        ModelError: there is no such model, its weights are missing, incomplete or pickles, or its base is not found; or
            a revision is named of what has none.
    """
    is_here = settings.id.startswith("ftk://") or Path(settings.id).expanduser().exists()
    if settings.revision is not None and is_here:
        raise ModelError(
            f"{settings.id} does not come from the hub, so it has no revision {settings.revision}. Leave the revision "
            "out, or name a hub id",
            place="model.revision",
        )
    return _locate(settings.id, revision=settings.revision, with_code=settings.trust_remote_code)


def _locate(name: str, *, revision: str | None, with_code: bool) -> ModelPlace:
    hub_id, reference = None, name
    if name.startswith("ftk://"):
        folder = _shipped(name)
    elif Path(name).expanduser().exists():
        folder = model_folder(Path(name).expanduser())
        reference = str(folder.resolve())
    else:
        folder, hub_id = _download(name, revision, with_code=with_code), name
    if (folder / ADAPTER_CONFIG).exists():
        return _with_base(name, folder, with_code=with_code)
    # Raises where any is missing.
    weight_files(folder)
    commit = folder.name if hub_id else None
    return ModelPlace(name, folder, reference, hub_id=hub_id, revision=commit, licence=licence_of(folder))


def model_folder(path: Path) -> Path:
    """The folder with a model's files at `path`: itself, or the `model` folder of a run.

    Raises:
        ModelError: it is a file, or no model is in it; folders in it that hold one are named.
    """
    if path.is_file():
        raise ModelError(f"{path} is a file. Name the folder that holds the model: config.json and *.safetensors")
    for folder in (path, path / "model"):
        if (folder / CONFIG).exists() or (folder / ADAPTER_CONFIG).exists():
            return folder
    found = sorted({config.parent for name in (CONFIG, ADAPTER_CONFIG) for config in path.glob(f"*/{name}")})
    found += sorted(child for child in path.glob("*") if (child / "model" / CONFIG).exists())
    best = path / "checkpoints" / "best"
    found += [best] if best.is_dir() else []
    hint = f" Models are in {', '.join(map(str, found[:5]))}" if found else _no_model_hint(path)
    raise ModelError(f"{path} is not a model folder: it has neither {CONFIG} nor {ADAPTER_CONFIG}.{hint}")


def _no_model_hint(path: Path) -> str:
    if (path / "checkpoints").is_dir():
        return " Its run has not finished: the same `ftk train` command goes on with it"
    return " Name a folder that transformers or PEFT saved, a finished run's folder, or a hub id"


def licence_of(folder: Path) -> str | None:
    """The licence that the header of a model card states, or None."""
    card = folder / "README.md"
    if not card.exists():
        return None
    header = re.match(r"---\s*\n(.*?)\n---", card.read_text(encoding="utf-8", errors="replace"), re.DOTALL)
    try:
        values = yaml.safe_load(header[1]) if header else None
    except yaml.YAMLError:
        return None
    if not isinstance(values, dict):
        return None
    licence = values.get("license_name") if values.get("license") == "other" else values.get("license")
    licence = licence or values.get("license")
    return ", ".join(map(str, licence)) if isinstance(licence, list) else None if licence is None else str(licence)


def _shipped(name: str) -> Path:
    if name not in SHIPPED:
        raise ModelError(f"no model {name} ships with ftk. There is {', '.join(SHIPPED)}")
    return Path(str(resources.files("ftk.models") / SHIPPED[name]))


def _with_base(name: str, folder: Path, *, with_code: bool) -> ModelPlace:
    config: dict[str, Any] = json.loads((folder / ADAPTER_CONFIG).read_text())
    base_name = config.get("base_model_name_or_path")
    if not (folder / ADAPTER_WEIGHTS).exists():
        pickles = "a pickle only, which ftk does not read" if (folder / "adapter_model.bin").exists() else "none"
        raise ModelError(f"the adapter in {folder} has no weights: expected {ADAPTER_WEIGHTS}, found {pickles}")
    if not base_name:
        raise ModelError(
            f"the adapter in {folder} does not say its base. Put base_model_name_or_path into {ADAPTER_CONFIG}"
        )
    try:
        base = _locate(base_name, revision=config.get("revision"), with_code=with_code)
    except ModelError as error:
        raise ModelError(
            f"the adapter in {folder} needs its base {base_name}, which is not to be had: {error.message}. "
            f"Where the base has moved, correct base_model_name_or_path in {folder / ADAPTER_CONFIG}"
        ) from error
    if base.adapter_folder is not None:
        raise ModelError(f"the base of the adapter in {folder} is an adapter itself: {base_name}. Merge that one first")
    return ModelPlace(
        name,
        base.folder,
        base.reference,
        hub_id=base.hub_id,
        revision=base.revision,
        adapter_folder=folder,
        licence=base.licence,
    )


def _download(name: str, revision: str | None, *, with_code: bool) -> Path:
    """Folder of a hub id's files in the cache of huggingface_hub.

    Raises:
        ModelError: the name is neither that of a folder nor one on the hub, or the hub cannot be reached.
    """
    from huggingface_hub import errors as hub
    from huggingface_hub import snapshot_download

    near = _near(name)
    hint = f" Near it here: {', '.join(near)}" if near else ""
    if not re.fullmatch(r"\w[\w.-]*(/[\w.-]+)?", name) or (near and "/" in name):
        raise ModelError(f"there is no folder {name}.{hint}")
    patterns = [*FROM_HUB, "*.py"] if with_code else [*FROM_HUB]
    try:
        return Path(
            snapshot_download(name, revision=revision, allow_patterns=patterns, ignore_patterns=list(NOT_FROM_HUB))
        )
    except hub.GatedRepoError as error:
        raise ModelError(
            f"{name} is on the hub, but its owners want to be asked first. Accept their terms on its page, then log in "
            "with `hf auth login`, or set HF_TOKEN"
        ) from error
    except hub.RevisionNotFoundError as error:
        raise ModelError(f"{name} has no revision {revision} on the hub") from error
    except hub.RepositoryNotFoundError as error:
        raise ModelError(
            f"{name} is neither a folder here nor a model on the hub. Check its spelling; if it is private, log in "
            f"with `hf auth login`, or set HF_TOKEN.{hint}"
        ) from error
    except (OSError, ValueError) as error:
        # No connection, another answer of the hub, a file that is not in the cache, or no name at all.
        raise ModelError(
            f"{name} is not a folder here, and the hub cannot be reached to download it ({type(error).__name__}). "
            f"Check the connection, or name a local folder.{hint}"
        ) from error


def _near(name: str) -> list[str]:
    """Folders beside where `name` would be that are called almost so."""
    path = Path(name).expanduser()
    siblings = [child.name for child in path.parent.iterdir() if child.is_dir()] if path.parent.is_dir() else []
    return [str(path.parent / sibling) for sibling in difflib.get_close_matches(path.name, siblings, n=3)]
