"""The numbers of a model from its configuration alone: nothing else is read, and no weights are downloaded."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ftk.core.errors import ModelError
from ftk.core.positions import max_positions
from ftk.memory import catalogue
from ftk.memory.architecture import Architecture, from_config
from ftk.memory.built import architecture_of, build, inventory_of
from ftk.memory.parameters import Inventory, inventory
from ftk.models.locate import ADAPTER_CONFIG, CONFIG, SHIPPED, model_folder
from ftk.models.settings import ModelSettings

ANSWER_SECONDS = 5.0
"""How long the hub may take to answer."""


@dataclass(frozen=True, slots=True)
class ModelNumbers:
    """What is known of a model without its weights."""

    name: str
    architecture: Architecture
    weights: Inventory
    is_known: bool
    """Whether its family is in the table; else activations are those of a plain decoder of its size."""
    config: dict[str, Any]
    """The configuration, as config.json has it."""


def model_numbers(settings: ModelSettings) -> ModelNumbers:
    """The numbers of a hub id, a folder, a run folder or a config.json.

    The catalogue answers for well-known hub ids. Of others the configuration is fetched from the hub.

    Raises:
        ModelError: there is no such model, or its configuration cannot be used; tells near names of the catalogue.
    """
    config = read_config(settings)
    positions = None
    if settings.context is not None and settings.context.extends:
        config, positions = _extended(config, settings)
    architecture = from_config(config)
    if architecture is not None:
        found = ModelNumbers(settings.id, architecture, inventory(architecture), True, config)
    else:
        built, weights = _built(config, settings)
        found = ModelNumbers(settings.id, built, weights, False, config)
    if positions is None:
        return found
    return replace(found, architecture=replace(found.architecture, positions=positions))


def read_config(settings: ModelSettings) -> dict[str, Any]:
    """The configuration of a model, as config.json has it; of an adapter, its base's.

    Raises:
        ModelError: there is none, or it cannot be read.
    """
    name = settings.id
    path = Path(name).expanduser()
    if name in SHIPPED or name.startswith("ftk://") or path.exists():
        return _read_file(path if path.is_file() else _folder(name) / CONFIG, settings)
    known = catalogue.look_up(name)
    return dict(known) if known is not None else _from_hub(settings)


def _folder(name: str) -> Path:
    from ftk.models.locate import locate

    if name.startswith("ftk://"):
        return locate(ModelSettings(id=name)).folder
    return model_folder(Path(name).expanduser())


def _read_file(path: Path, settings: ModelSettings) -> dict[str, Any]:
    adapter = path.parent / ADAPTER_CONFIG
    if not path.exists() and adapter.exists():
        base = _json(adapter).get("base_model_name_or_path")
        if not base:
            raise ModelError(f"the adapter does not say its base. Put base_model_name_or_path into {adapter}")
        return read_config(settings.model_copy(update={"id": str(base), "revision": None}))
    return _json(path)


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ModelError(f"cannot be read as a model's configuration: {error}", place=str(path)) from error
    if not isinstance(content, dict):
        raise ModelError("is no model's configuration: expected a mapping", place=str(path))
    return content


def _from_hub(settings: ModelSettings) -> dict[str, Any]:
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache

    try:
        cached = try_to_load_from_cache(settings.id, CONFIG, revision=settings.revision)
        if not isinstance(cached, str):
            # Asked first, since a download without a connection tries again for a long while.
            get_hf_file_metadata(hf_hub_url(settings.id, CONFIG, revision=settings.revision), timeout=ANSWER_SECONDS)
        path = cached if isinstance(cached, str) else hf_hub_download(settings.id, CONFIG, revision=settings.revision)
    except Exception as error:
        # The hub's answer, no name at all, or whatever the network's library calls a missing connection.
        near = catalogue.near(settings.id)
        hint = f" Near it are {', '.join(near)}." if near else ""
        raise ModelError(
            f"{settings.id} is no folder here, not in the catalogue, and its configuration cannot be had from the hub "
            f"({type(error).__name__}).{hint} Or give the model's config.json, which needs no connection: "
            "--model path/to/config.json"
        ) from error
    return _json(Path(path))


def _extended(config: dict[str, Any], settings: ModelSettings) -> tuple[dict[str, Any], int | None]:
    """The configuration as `model.context` extends it, and the positions that it has then."""
    from ftk.models.extend import extend_config

    assert settings.context is not None
    built = _transformers_config(config, settings)
    extend_config(built, settings.context, name=settings.id)
    return built.to_dict(), max_positions(built)


def _transformers_config(config: dict[str, Any], settings: ModelSettings) -> Any:
    from transformers import AutoConfig

    from ftk.models.load import UNREADABLE

    values = {key: value for key, value in config.items() if key != "model_type"}
    try:
        return AutoConfig.for_model(str(config.get("model_type", "")), **values)
    except UNREADABLE as error:
        raise ModelError(
            f"transformers does not know the configuration of {settings.id} (model_type {config.get('model_type')}): "
            f"{str(error).strip().splitlines()[0]}"
        ) from error


def _built(config: dict[str, Any], settings: ModelSettings) -> tuple[Architecture, Inventory]:
    from transformers import AutoConfig

    from ftk.models.load import UNREADABLE

    kind = config.get("model_type")
    if not kind:
        raise ModelError(f"the configuration of {settings.id} does not say its model_type", place=settings.id)
    try:
        built = AutoConfig.for_model(kind, **{key: value for key, value in config.items() if key != "model_type"})
        model = build(built, trust_remote_code=settings.trust_remote_code)
    except (*UNREADABLE, RuntimeError) as error:
        raise ModelError(
            f"transformers cannot build a causal language model of the configuration of {settings.id} "
            f"(model_type {kind}): {str(error).strip().splitlines()[0]}"
        ) from error
    return architecture_of(built), inventory_of(model)
