"""Overrides `a.b=value`: the same paths as in the file, values read as YAML, lists by index."""

from collections.abc import Mapping
from dataclasses import replace

from ftk.core.errors import RecipeError
from ftk.recipe.shapes import Shape
from ftk.recipe.written import Path, Problem, Written, dotted, merged
from ftk.recipe.yaml_text import read_value


def overridden(
    root: Written, override: str, shape: Shape, *, environment: Mapping[str, str], problems: list[Problem]
) -> Written:
    """The recipe with one override on top.

    Raises:
        RecipeError: it is not of the form `path=value`, its value is no YAML, or its path leads through a list's end.
    """
    path_text, equals, value_text = override.partition("=")
    parts = tuple(part.strip() for part in path_text.split("."))
    if not equals or not all(parts):
        raise RecipeError("is no override. Expected path=value, such as training.epochs=1", place=override)
    value = read_value(value_text, override, environment=environment, problems=problems)
    return _put(root, parts, value, shape, above=())


def _put(node: Written | None, parts: tuple[str, ...], value: Written, shape: Shape | None, *, above: Path) -> Written:
    if not parts:
        return merged(node, shape.expanded(value) if shape is not None else value)
    if node is not None and isinstance(node.value, list):
        return _put_into_list(node, node.value, parts, value, shape, above=above)
    key = parts[0]
    below = shape.below(key, node) if shape is not None else None
    child = node.child(key) if node is not None else None
    item = _put(child, parts[1:], value, below, above=(*above, key))
    return merged(node, Written({key: item}, node.place if node is not None else value.place))


def _put_into_list(
    node: Written, items: list[Written], parts: tuple[str, ...], value: Written, shape: Shape | None, *, above: Path
) -> Written:
    here = dotted(above)
    if not parts[0].isdecimal():
        example = ".".join([here, "0", *parts])
        raise RecipeError(f"{here} is a list: say which of its items, such as {example}=...", place=value.place)
    index = int(parts[0])
    if index > len(items):
        raise RecipeError(
            f"{here} has {len(items)} items, counted from 0; {index} is past the end. {here}.{len(items)} adds one",
            place=value.place,
        )
    old = items[index] if index < len(items) else None
    item = _put(old, parts[1:], value, shape.item if shape is not None else None, above=(*above, index))
    return replace(node, value=[*items[:index], item, *items[index + 1 :]])
