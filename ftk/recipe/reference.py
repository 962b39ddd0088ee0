"""The reference page of recipes, written from the docstrings of the fields."""

from collections.abc import Mapping
from typing import Literal, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic.json_schema import JsonSchemaValue

from ftk.core.config import MODULE_FUNCTION, Section
from ftk.recipe.schema import Recipe
from ftk.recipe.shapes import Shape, shape_of
from ftk.recipe.stage_answers import Generate
from ftk.recipe.stages import Stage

_HEAD = """# Recipe reference

Every key of a recipe: what it takes, its default, and why one would change it. Written by `scripts/build_reference.py`
from the docstrings in the code; the JSON Schema for editors is `recipe.schema.json` beside this page.

A plain word in place of a mapping sets the first field (`tuning: lora` is `tuning: {name: lora}`); one item may stand
for a list of one. `extends: other.yaml` starts from another recipe. `${NAME}` takes an environment variable, `$${` is a
literal `${`. On the command line the same paths take values: `training.epochs=1`, `data.train.0.weight=2`.
"""

_STAGES = """## stages

A chain: a list of stages in order, each a recipe of its own that says only what differs from the part that all share,
and may change any section (another `name` replaces that section whole). `ftk train` trains them one after the other,
each in a folder of its own, `output.folder/ID`, from the model of the one before; the same command again skips those
that are complete, goes on with one that is not, and trains anew, in the next number, one that was changed and those
after it. In the end one table compares every stage's model on every stage's held-out rows. On the command line
`stages.ID.training.epochs=1` changes one stage; other paths change the shared part. Of the shared part
`model.revision` is of the model that the chain begins with, whose positions are extended once by `length` and `scaling`
of `model.context`; `output.push_to_hub` is for the last stage's model. A stage with `generate` answers questions in
place of training, on one process, and takes of a recipe only `model`, `quantization`, `data.train`,
`data.chat_template`, `data.template_arguments`, `output.folder` and `seed`; its answers are the source
`ftk://stages/ID` of later stages.
"""


def reference_page() -> str:
    """The page, in Markdown."""
    parts = [_HEAD]
    shown: dict[type[Section], str] = {}
    for key, info in Recipe.model_fields.items():
        parts.append(f"## {key}\n\n{_description(info)}\n")
        shape = shape_of(info)
        parts += _tables(key, shape, shown) if _has_sections(shape) else [f"Default: `{_default(info)}`.\n"]
    parts += [_STAGES, *section_table(Stage, prefix="stages.")]
    parts += ["### stages.generate\n", *section_table(Generate, prefix="stages.generate.")]
    return "\n".join(parts)


def _tables(path: str, shape: Shape, shown: dict[type[Section], str]) -> list[str]:
    """The tables of a section, or of each member of a union, and of what lies beneath; each section once."""
    while shape.item is not None:
        shape = shape.item
    tables: list[str] = []
    for name, section in shape.sections.items():
        if section in shown:
            tables.append(f"As `{shown[section]}`.\n")
            continue
        shown[section] = path
        if name:
            label = "your own function" if name == MODULE_FUNCTION else f"`{name}`"
            tables.append(f"### {path}: {label}\n\n{summary(section)}\n")
        tables += section_table(section, prefix=f"{path}.")
        for key, inner in section.model_fields.items():
            below = shape_of(inner)
            if _has_sections(below):
                is_one = below.by_name is None and (below.item is None or below.item.by_name is None)
                tables += [f"### {path}.{key}\n"] if is_one else []
                tables += _tables(f"{path}.{key}", below, shown)
    return tables


def _has_sections(shape: Shape) -> bool:
    return bool(shape.sections) or (shape.item is not None and _has_sections(shape.item))


def section_table(section: type[Section], *, prefix: str, title: str = "key") -> list[str]:
    """The table of a section's fields, none where there are none.

    Args:
        section: which.
        prefix: what stands before the fields' names.
        title: of the first column.
    """
    # The heading says a member's name already.
    fields = [
        (key, info)
        for key, info in section.model_fields.items()
        if key != "name" or get_origin(info.annotation) is not Literal
    ]
    named = [(info.alias or key, info) for key, info in fields]
    rows = [f"| `{prefix}{key}` | {_takes(section, key)} | {_cell(info)} |" for key, info in named]
    return ["\n".join([f"| {title} | takes | meaning |", "| --- | --- | --- |", *rows, ""])] if rows else []


def _cell(info: FieldInfo) -> str:
    default = "Required." if info.is_required() else f"Default: `{_default(info)}`."
    return f"{_description(info)} {default}".replace("\n", " ").replace("|", "\\|")


def _description(info: FieldInfo) -> str:
    return " ".join((info.description or "").split())


def summary(section: type[Section]) -> str:
    """What a member of a union is: its docstring's first part, and what its name says of it."""
    about = " ".join((section.__doc__ or "").split("\n\n")[0].split())
    named = _description(section.model_fields["name"]).partition(": ")[2]
    return f"{about} {named[0].upper()}{named[1:]}" if named else about


def _default(info: FieldInfo) -> str:
    value = info.get_default(call_default_factory=True)
    if isinstance(value, Section):
        name = getattr(value, "name", None)
        return name if isinstance(name, str) else "as below"
    if isinstance(value, BaseModel):
        value = value.model_dump()
    if isinstance(value, tuple):
        return f"[{', '.join(str(item) for item in value)}]"
    if isinstance(value, float):
        return f"{value:g}"
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _takes(section: type[Section], key: str) -> str:
    schema = section.model_json_schema()
    # The mapping, beside which a section's plain word may stand.
    mapping = schema if "properties" in schema else schema["anyOf"][-1]
    return _in_words(mapping["properties"][key], schema.get("$defs", {}))


def _in_words(schema: JsonSchemaValue, definitions: Mapping[str, JsonSchemaValue]) -> str:
    if "$ref" in schema:
        return _in_words(definitions[schema["$ref"].rsplit("/", 1)[-1]], definitions)
    if "anyOf" in schema and schema["anyOf"][-1].get("items") == schema["anyOf"][0]:
        return f"one or more: {_in_words(schema['anyOf'][0], definitions)}"
    if "anyOf" in schema:
        words = (_in_words(choice, definitions) for choice in schema["anyOf"])
        return " or ".join(dict.fromkeys(words))
    if "enum" in schema:
        return ", ".join(f"`{choice}`" for choice in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    match schema["type"]:
        case "integer" | "number" as kind:
            return f"{'whole number' if kind == 'integer' else 'number'}{_bounds(schema)}"
        case "array":
            items = schema.get("items") or schema["prefixItems"][0]
            return f"list of {_in_words(items, definitions)}"
        case other:
            return {"string": "text", "boolean": "true or false", "object": "mapping", "null": "null"}[other]


def _bounds(schema: JsonSchemaValue) -> str:
    signs = {"exclusiveMinimum": ">", "minimum": "≥", "exclusiveMaximum": "<", "maximum": "≤"}
    return "".join(f" {sign} {schema[key]}" for key, sign in signs.items() if key in schema)
