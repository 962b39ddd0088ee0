"""A model's configuration with more positions, in the form in which transformers 5 reads it, and 4 as well."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ftk.core.errors import ModelError, RecipeError
from ftk.core.positions import max_positions, rope_parts
from ftk.models.context import ContextSettings
from ftk.models.rope.frequencies import Rotary

CONTEXT_FILE = "context.json"
"""Beside an adapter: the keys of its base's config.json that were others in training."""

POSITIONS, ROPE, OLDER = "max_position_embeddings", "rope_parameters", "transformers_4"
_OF_SCALING = {
    "rope_type",
    "type",
    "factor",
    "original_max_position_embeddings",
    "attention_factor",
    "beta_fast",
    "beta_slow",
    "low_freq_factor",
    "high_freq_factor",
}
_KNOWN = ("linear", "dynamic", "yarn", "llama3")
"""Kinds of scaling that tell from which length they started."""
_WINDOWED = ("sliding", "chunked", "local")
"""In names of kinds of layers that look no further back than they always did: their positions stay as they are."""


def extend_config(config: Any, settings: ContextSettings, *, name: str) -> None:
    """Give a configuration the positions that a recipe asks for.

    Raises:
        RecipeError: the model reads as far already, or a factor does not reach to the length.
        ModelError: its positions cannot be scaled so.
    """
    text = config.get_text_config(decoder=True)
    positions = max_positions(config)
    if positions is None:
        raise ModelError(
            f"{name} sets no bound to positions, as models with ALiBi do: data.max_length alone says how long rows "
            "are. Leave model.context.length and scaling out",
            place="model.context",
        )
    kinds = {part.get("rope_type") for part in rope_parts(text).values()}
    if settings.length == positions and settings.way.name in kinds:
        return  # An earlier stage of a chain has extended it so.
    if settings.length is not None and settings.length <= positions:
        raise RecipeError(
            f"{name} has {positions} positions already, so it need not be extended to {settings.length}. Leave "
            "model.context.length out, or ask for more",
            place="model.context.length",
        )
    if not rope_parts(text):
        _check_learned(settings, name)
        setattr(text, POSITIONS, settings.length)
        return
    rotaries = rotaries_of(config, settings, name=name)
    rope = dict(getattr(text, ROPE))
    for kind, rotary in rotaries.items():
        part = rope_parts(text)[kind]
        changed = {key: value for key, value in part.items() if key not in _OF_SCALING}
        changed |= settings.way.parameters(rotary)
        rope = changed if kind == "" else {**rope, kind: changed}
    rotary = next(iter(rotaries.values()))
    # transformers takes what stands there for the length that was trained.
    setattr(text, POSITIONS, rotary.original if settings.way.name == "dynamic" else rotary.length)
    setattr(text, ROPE, rope)
    text.standardize_rope_params()


def rotaries_of(config: Any, settings: ContextSettings, *, name: str) -> dict[str, Rotary]:
    """The rotary positions of a configuration that is not yet extended, by kind of layer, and how far they shall reach.

    Raises:
        RecipeError: a factor does not reach to the length.
        ModelError: they are scaled in a way with which this one does not go.
    """
    text = config.get_text_config(decoder=True)
    head_dim = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    found = {}
    for kind, rope in rope_parts(text).items():
        if any(word in kind for word in _WINDOWED):
            continue
        original = _original(rope, text, settings.way.name, name)
        factor, length = _reach(original, settings)
        dim = int(head_dim * rope.get("partial_rotary_factor", 1.0))
        found[kind] = Rotary(float(rope["rope_theta"]), dim, original, length, factor)
    return found


def saved_context(folder: Path) -> dict[str, Any] | None:
    """What was other in training than the base's config.json says, as an adapter's folder keeps it.

    Raises:
        ModelError: it cannot be read.
    """
    path = folder / CONTEXT_FILE
    if not path.exists():
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(values[POSITIONS], int) or not isinstance(values[ROPE], dict):
            raise TypeError(f"{POSITIONS} is no number, or {ROPE} no mapping")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{path} cannot be read ({error}). Expected the positions that the adapter was trained at: a JSON object "
            f"with {POSITIONS} and {ROPE}, as ftk writes it"
        ) from error
    return dict(values)


def apply_saved_context(config: Any, values: Mapping[str, Any]) -> None:
    """Give the base's configuration the positions that its adapter was trained at."""
    text = config.get_text_config(decoder=True)
    setattr(text, POSITIONS, values[POSITIONS])
    setattr(text, ROPE, values[ROPE])


def context_values(config: Any) -> dict[str, Any]:
    """The keys of config.json that tell the positions, and those by which transformers 4 knows them, as a part."""
    text = config.get_text_config(decoder=True)
    values = {POSITIONS: getattr(text, POSITIONS), ROPE: getattr(text, ROPE)}
    older = _as_transformers_4(text)
    # Where the configuration's class reads older keys in a way of its own, the newer ones stand alone.
    reread = type(text)(**json.loads(json.dumps({**text.to_dict(), **older})))
    return {**values, OLDER: older if getattr(reread, ROPE) == values[ROPE] else {}}


def with_context(config: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """config.json of a model of text, or with a part for text, with these positions, for both versions."""
    inner = "text_config"
    keys = {POSITIONS: values[POSITIONS], ROPE: values[ROPE], **values.get(OLDER, {})}
    if isinstance(config.get(inner), dict):
        return {**config, inner: {**config[inner], **keys}}
    return {**config, **keys}


def _as_transformers_4(text: Any) -> dict[str, Any]:
    parts = rope_parts(text)
    kind = next((kind for kind in parts if not any(word in kind for word in _WINDOWED)), "")
    rope = parts[kind]
    theta, partial = ("rotary_emb_base", "rotary_pct") if text.model_type == "gpt_neox" else (None, None)
    scaling = {key: value for key, value in rope.items() if key not in ("rope_theta", "partial_rotary_factor")}
    older = {
        theta or "rope_theta": rope["rope_theta"],
        "rope_scaling": None if rope.get("rope_type") == "default" else scaling,
    }
    if "partial_rotary_factor" in rope:
        older[partial or "partial_rotary_factor"] = rope["partial_rotary_factor"]
    local = next((parts[other] for other in parts if other != kind), None)
    if local is not None:
        older["rope_local_base_freq"] = local["rope_theta"]
    return older


def _check_learned(settings: ContextSettings, name: str) -> None:
    if settings.length is None or settings.scaling is not None:
        raise ModelError(
            f"{name} has no rotary positions that could be scaled; a table of learned ones is stretched by "
            "interpolation. Leave model.context.scaling out and say the length, such as model.context.length=2048",
            place="model.context.scaling",
        )


def _original(rope: Mapping[str, Any], text: Any, scaling: str, name: str) -> int:
    """The positions that the model was trained at before anything was scaled."""
    positions, kind = int(getattr(text, POSITIONS)), rope.get("rope_type", "default")
    if kind == "default":
        return positions
    unknown = {key for key, value in rope.items() if key not in _OF_SCALING and value is not None} - {
        "rope_theta",
        "partial_rotary_factor",
    }
    if kind != scaling or unknown:
        raise ModelError(
            f"{name} is scaled by {kind} already"
            + (f", with {', '.join(sorted(unknown))} of its own" if unknown else "")
            + f", which {scaling} cannot go on from. "
            + (f"Take scaling: {kind}" if not unknown and kind in _KNOWN else "Start from a model without scaling"),
            place="model.context.scaling",
        )
    if kind == "linear":
        return round(positions / float(rope["factor"]))
    return positions if kind == "dynamic" else int(rope["original_max_position_embeddings"])


def _reach(original: int, settings: ContextSettings) -> tuple[float, int]:
    """The factor, and how many positions there are under it."""
    asked = settings.way.factor
    if settings.length is None:
        assert asked is not None
        return asked, math.floor(original * asked)
    if asked is None:
        return settings.length / original, settings.length
    if original * asked < settings.length:
        raise RecipeError(
            f"{settings.way.name} by a factor of {asked:g} reaches from {original} to "
            f"{math.floor(original * asked)} positions, and model.context.length asks for {settings.length}. Leave the "
            "factor out, which then follows from the length",
            place="model.context.scaling.factor",
        )
    # transformers 4 takes the factor of YaRN from the positions, whatever the factor says.
    return asked, math.floor(original * asked) if settings.way.name == "yarn" else settings.length
