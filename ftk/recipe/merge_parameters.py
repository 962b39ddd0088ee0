"""The parameters of a merge's method: which there are, and that every number, gradient and filter of one is allowed."""

import sys
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from ftk.core.config import Section
from ftk.merging.parameters import Filtered, Gradient, Scalar, Setting
from ftk.recipe.merge_keys import Checked
from ftk.recipe.shapes import nearest
from ftk.recipe.written import Written

NO_EFFECT = ("int8_mask",)
"""Parameters of mergekit's that change neither its result nor ours: masks take a bit an element here."""

Check = Callable[[Written, str], Scalar | None]


class MethodParameters:
    """What one method can be told."""

    def __init__(self, method: type[Section], checked: Checked) -> None:
        self._method = method.model_fields["name"].default
        self._checked = checked
        self._per_model = {one.name: one for one in method.per_model}  # type: ignore[attr-defined]
        self._whole = {
            info.alias or name: TypeAdapter[Any](info.rebuild_annotation(), config=ConfigDict(allow_inf_nan=False))
            for name, info in method.model_fields.items()
            if name != "name"
        }

    def read(self, node: Written | None, path: str, *, of_one_model: bool) -> dict[str, Setting]:
        """The parameters under one `parameters` key; what is wrong with them is noted."""
        if node is None or node.value is None:
            return {}
        if not isinstance(node.value, dict):
            self._checked.refuse(node, f"{path} is {node.shown()}, expected a mapping")
            return {}
        found: dict[str, Setting] = {}
        for key, item in node.value.items():
            check = self._check(key)
            if key in NO_EFFECT or item.value is None:
                continue
            if check is None:
                self._checked.refuse(item, self._unknown(key, path))
            elif of_one_model and key not in self._per_model:
                self._checked.refuse(
                    item, f"{path}.{key} is of the whole merge, not of one model. Put it into the outer parameters"
                )
            else:
                setting = self._setting(item, f"{path}.{key}", check)
                if setting is not None:
                    found[key] = setting
        return found

    def _unknown(self, key: str, path: str) -> str:
        known = [*self._per_model, *self._whole]
        near = nearest(key, known)
        hint = f"Did you mean {near}?" if near else f"There are: {', '.join(known)}." if known else "It has none."
        return f"{path}.{key} is not a parameter of {self._method}. {hint}"

    def _check(self, key: str) -> Check | None:
        if key in self._per_model:
            return self._number
        return self._field if key in self._whole else None

    def _number(self, node: Written, path: str) -> Scalar | None:
        parameter = self._per_model[path.split(".")[-1]]
        value = node.value
        if (
            isinstance(value, int | float)
            and not isinstance(value, bool)
            # A whole number may be too large to become one with a point.
            and abs(value) <= sys.float_info.max
            and parameter.lowest <= value <= parameter.highest
        ):
            return float(value)
        self._checked.refuse(node, f"{path} is {node.shown()}, expected {_between(parameter)}")
        return None

    def _field(self, node: Written, path: str) -> Scalar | None:
        adapter = self._whole[path.split(".")[-1]]
        try:
            found: Scalar = adapter.validate_python(node.value, strict=isinstance(node.value, bool))
        except ValidationError as error:
            self._checked.refuse(node, f"{path} is {node.shown()}: {error.errors()[0]['msg']}")
            return None
        return found

    def _setting(self, node: Written, path: str, check: Check) -> Setting | None:
        """Not None, unless something is wrong with it."""
        value = node.value
        if isinstance(value, dict):
            one = self._filtered(node, path, check)
            return None if one is None else (one,)
        if isinstance(value, list) and any(isinstance(item.value, dict) for item in value):
            filtered = [self._filtered(item, path, check) for item in value]
            kept = tuple(one for one in filtered if one is not None)
            return kept if len(kept) == len(filtered) else None
        return self._value(node, path, check)

    def _value(self, node: Written, path: str, check: Check) -> Scalar | Gradient | None:
        if not isinstance(node.value, list):
            return check(node, path)
        if not node.value:
            self._checked.refuse(node, f"{path} is an empty list, expected numbers, from the first layer to the last")
            return None
        points = [check(item, path) for item in node.value]
        kept = tuple(point for point in points if point is not None)
        return kept if len(kept) == len(points) else None

    def _filtered(self, node: Written, path: str, check: Check) -> Filtered | None:
        # The last part of a path is the parameter's name, by which its check is found.
        items = self._checked.mapping(node, path, ("filter", "value"))
        if "value" not in items:
            if isinstance(node.value, dict):
                self._checked.refuse(node, f"{path} has a filter without a value. Expected {{filter: ..., value: ...}}")
            return None
        value = self._value(items["value"], path, check)
        return None if value is None else Filtered(self._checked.text(items, "filter", path), value)


def _between(parameter: Any) -> str:
    low, high = parameter.lowest, parameter.highest
    if low == float("-inf") and high == float("inf"):
        return "a number"
    if high == float("inf"):
        return f"a number of at least {low:g}"
    return f"a number from {low:g} to {high:g}"


def as_written(parameters: Mapping[str, Setting]) -> dict[str, object]:
    """Parameters as plain values, as a file has them."""
    return {name: _plain(setting) for name, setting in parameters.items()}


def _plain(setting: Setting) -> object:
    if not isinstance(setting, tuple):
        return setting
    return [
        {"value": _plain(item.value)} | ({"filter": item.filter} if item.filter is not None else {})
        if isinstance(item, Filtered)
        else item
        for item in setting
    ]
