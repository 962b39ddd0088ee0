"""The base of every recipe section, and how unions of them pick their member by name."""

from dataclasses import dataclass
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, GetJsonSchemaHandler, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

MODULE_FUNCTION = "module:function"
"""The way in which a recipe names Python code of the user's."""


class Section(BaseModel):
    """A frozen part of a recipe that knows all its keys.

    The string under each field is its documentation: meaning, unit, and why one would change it. A plain word in place
    of a mapping sets the first field, so `tuning: lora` means `tuning: {name: lora}`.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True, allow_inf_nan=False
    )

    @model_validator(mode="before")
    @classmethod
    def _plain_word_sets_the_first_field(cls, value: Any) -> Any:
        return cls.expand(value)

    @classmethod
    def expand(cls, value: Any) -> Any:
        """The mapping that a plain word stands for; anything else as it is."""
        if isinstance(value, str):
            return {next(iter(cls.model_fields)): value}
        return value

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """The mapping, or the plain word where one can be enough. Names are told by the union that picks by them."""
        mapping = handler(schema)
        resolved = handler.resolve_ref_schema(mapping)
        first = next(iter(cls.model_fields))
        word = resolved["properties"][first]
        if first == "name" or word.get("type") != "string" or not set(resolved.get("required", ())) <= {first}:
            return mapping
        return {"anyOf": [{key: value for key, value in word.items() if key not in ("default", "title")}, mapping]}


@dataclass(frozen=True)
class ByName:
    """Beside a union of sections: the `name` in a mapping, or a plain word in its place, picks the member.

    `Annotated[Full | Lora, ByName(default="lora")]` takes `full`, `{name: lora, rank: 8}` and `{rank: 8}`. A member
    whose `name` is any text, not a literal, is the one that `module:function` means.
    """

    default: str | None = None
    """Which member a mapping without `name` means; by default the name must be said."""

    def expand(self, value: Any) -> Any:
        """The mapping that a plain word stands for, its default name filled in; anything else as it is."""
        if isinstance(value, str):
            return {"name": value}
        if isinstance(value, dict) and "name" not in value and self.default is not None:
            return {"name": self.default, **value}
        return value

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        choices = {name: handler.generate_schema(member) for name, member in members(source).items()}
        return core_schema.no_info_before_validator_function(
            self.expand, core_schema.tagged_union_schema(choices, discriminator=_tag)
        )

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """A plain word among the names that need no more, `module:function` where taken, or a member's mapping."""
        choices = schema["schema"]["choices"]
        mappings = {name: handler(choice) for name, choice in choices.items()}
        words: list[JsonSchemaValue] = []
        if MODULE_FUNCTION in mappings:
            words.append({"type": "string", "pattern": "^[A-Za-z_][\\w.]*:[A-Za-z_]\\w*$"})
        named = {name: one for name, one in mappings.items() if name != MODULE_FUNCTION}
        enough = [name for name, one in named.items() if not handler.resolve_ref_schema(one).get("required")]
        return {"anyOf": [{"type": "string", "enum": enough}, *words, *mappings.values()]}


def _tag(value: Any) -> str | None:
    name = value.get("name") if isinstance(value, dict) else getattr(value, "name", None)
    if not isinstance(name, str):
        return None
    return MODULE_FUNCTION if ":" in name else name


@dataclass(frozen=True)
class OneOrMore:
    """Beside a tuple: one item may stand for a list of one, and null for the empty list."""

    def expand(self, value: Any) -> Any:
        """The list that one item stands for; a list as it is."""
        if value is None:
            return []
        return value if isinstance(value, list | tuple) else [value]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self.expand, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        many = handler(schema)
        return {"anyOf": [many["items"], many]}


def members(union: Any) -> dict[str, type[Section]]:
    """The sections of a union, or the one section given, by their names."""
    classes = get_args(union) if get_origin(union) in (Union, UnionType) else (union,)
    return {name: section for section in classes for name in _names(section)}


def _names(section: type[Section]) -> tuple[str, ...]:
    annotation = section.model_fields["name"].annotation
    return get_args(annotation) if get_origin(annotation) is Literal else (MODULE_FUNCTION,)
