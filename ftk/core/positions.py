"""How many positions a model has, as its configuration says."""

from typing import Any

REACHED_BY_FACTOR = ("dynamic", "yarn")
"""Ways of scaling under which the factor may reach beyond `max_position_embeddings`, which then are those trained."""


def max_positions(config: Any) -> int | None:
    """The longest row in tokens that a model's positions allow, or None where it sets no bound."""
    text = config.get_text_config(decoder=True)
    positions = getattr(text, "max_position_embeddings", None)
    if not positions:
        return None
    return max(int(positions), *(_reached(rope, int(positions)) for rope in rope_parts(text).values()), 0)


def rope_parts(text_config: Any) -> dict[str, dict[str, Any]]:
    """Parameters of rotary positions by kind of layer, or under the empty name where all layers have the same."""
    rope = getattr(text_config, "rope_parameters", None) or {}
    parts = {kind: part for kind, part in rope.items() if isinstance(part, dict)}
    return parts or ({"": rope} if rope else {})


def _reached(rope: dict[str, Any], positions: int) -> int:
    if rope.get("rope_type") not in REACHED_BY_FACTOR or not rope.get("factor"):
        return 0
    trained = positions if rope["rope_type"] == "dynamic" else rope.get("original_max_position_embeddings", positions)
    reached: int = round(trained * rope["factor"])
    return reached
