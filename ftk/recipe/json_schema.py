"""The JSON Schema by which editors complete and check a recipe."""

from typing import Any

from ftk.recipe.schema import Recipe


def recipe_schema() -> dict[str, Any]:
    """The schema of a recipe file: shorthand words and `extends` included, descriptions from the fields' docstrings."""
    schema = Recipe.model_json_schema()
    extends = {"type": "string", "description": "Another recipe, relative to this file; say here only what differs."}
    schema["properties"] = {"extends": extends, **schema["properties"]}
    # What is required may stand in the recipe that this one extends, within sections too.
    required = schema.pop("required")
    schema["anyOf"] = [{"required": required}, {"required": ["extends"]}]
    for key in required:
        section = schema["properties"][key]["$ref"].rsplit("/", 1)[-1]
        _mapping(schema["$defs"][section]).pop("required")
    schema["title"] = "ftk recipe"
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _mapping(schema: dict[str, Any]) -> dict[str, Any]:
    """A section's mapping, beside which its plain word may stand."""
    return schema if "properties" in schema else schema["anyOf"][-1]
