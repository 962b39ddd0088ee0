"""The JSON Schema by which editors complete and check a recipe."""

from typing import Any

from ftk.recipe.schema import Recipe
from ftk.recipe.stages import Stage


def recipe_schema() -> dict[str, Any]:
    """The schema of a recipe file: shorthand, `extends` and `stages` included, descriptions from the docstrings."""
    schema = Recipe.model_json_schema()
    sections = schema["properties"]
    extends = {"type": "string", "description": "Another recipe, relative to this file; say here only what differs."}
    stages, own = _stages(sections)
    schema["properties"] = {"extends": extends, **sections, "stages": stages}
    schema["$defs"] |= own
    # What is required may stand in the recipe that this one extends, or in its stages, within sections too.
    required = schema.pop("required")
    schema["anyOf"] = [{"required": required}, {"required": ["extends"]}, {"required": ["stages"]}]
    for key in required:
        section = sections[key]["$ref"].rsplit("/", 1)[-1]
        _mapping(schema["$defs"][section]).pop("required")
    schema["title"] = "ftk recipe"
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _stages(sections: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A list of stages, each of which may have any section beside its own keys; and the sections of those."""
    schema = Stage.model_json_schema()
    own = schema.pop("$defs", {})
    stage = _mapping(schema)
    listed = {
        "type": "array",
        "minItems": 1,
        "description": "Stages in order, each saying only what differs from the part that all share.",
        "items": {**stage, "title": "Stage", "properties": {**stage["properties"], **sections}},
    }
    return listed, own


def _mapping(schema: dict[str, Any]) -> dict[str, Any]:
    """A section's mapping, beside which its plain word may stand."""
    return schema if "properties" in schema else schema["anyOf"][-1]
