"""What is wrong with a recipe, in words: place, what was found, what was expected, the nearest name."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ftk.core.config import MODULE_FUNCTION
from ftk.recipe.foreign_keys import NAMES, NOT_NEEDED, RENAMED
from ftk.recipe.shapes import Shape, fields, nearest
from ftk.recipe.written import Path, Problem, Written, dotted

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

MAX_OWNERS = 3
"""A field name that more sections have than this, such as `name`, says nothing of where a misplaced key belongs."""

_EXPECTED = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a mapping",
    "greater_than": "more than {gt:g}",
    "greater_than_equal": "at least {ge:g}",
    "less_than": "less than {lt:g}",
    "less_than_equal": "at most {le:g}",
    "too_short": "at least {min_length} of them",
    "too_long": "at most {max_length} of them",
    "string_pattern_mismatch": "text of the form {pattern}",
}


def explained(errors: Iterable["ErrorDetails"], root: Written, shape: Shape) -> list[Problem]:
    """One problem for each place that pydantic found wrong."""
    by_path: dict[Path, list[ErrorDetails]] = {}
    for error in errors:
        # What a section says of itself is of what was written, and the last part may be the name of a union's member.
        loc = located(error["loc"], root, may_be_missing=error["type"] != "value_error")
        by_path.setdefault(loc, []).append(error)
    return [_problem(path, group, root, shape) for path, group in by_path.items()]


def located(loc: Sequence[str | int], root: Written, *, may_be_missing: bool = True) -> Path:
    """The path in the recipe that pydantic's location means; it also counts members of unions.

    `may_be_missing`: whether its last part may be a field that is not written.
    """
    path: list[str | int] = []
    node: Written | None = root
    for number, part in enumerate(loc, start=1):
        child = node.child(part) if node is not None else None
        is_last = may_be_missing and number == len(loc)
        is_missing_field = is_last and node is not None and isinstance(node.value, dict)
        if child is not None or is_missing_field:
            path.append(part)
            node = child
    return tuple(path)


def place_of(path: Path, root: Written) -> str:
    """The place of a value, or of the nearest thing around it that was written."""
    node = root
    for part in path:
        child = node.child(part)
        if child is None:
            break
        node = child
    return node.place


def _problem(path: Path, errors: "list[ErrorDetails]", root: Written, shape: Shape) -> Problem:
    place, name = place_of(path, root), dotted(path)
    node, parent, here = _at(path, root, shape)
    kinds = {error["type"] for error in errors}
    if "extra_forbidden" in kinds:
        return Problem(place, unknown_key(path, parent, _at(path[:-1], root, shape)[2]))
    if "missing" in kinds:
        about = (here.info.description or "").split("\n\n")[0].replace("\n", " ") if here and here.info else ""
        return Problem(place, f"{name} is missing. {about}".strip())
    if kinds & {"union_tag_invalid", "union_tag_not_found"} and here is not None and here.by_name is not None:
        return _unknown_name(name, node, here)
    found = node.shown() if node is not None else "null"
    reasons = [str(error["ctx"]["error"]) for error in errors if error["type"] == "value_error"]
    if reasons and not reasons[0].startswith("expected "):
        # Of a section the reason tells which of its fields; that it is a mapping would tell nothing.
        is_section = node is not None and isinstance(node.value, dict)
        about = name if is_section else f"{name} is {found}"
        return Problem(place, f"{about}: {reasons[0]}" if name else reasons[0])
    return Problem(place, f"{name} is {found}, expected {_expectation(errors, here)}{_hint(errors, node)}")


def _at(path: Path, root: Written, shape: Shape) -> tuple[Written | None, Written, Shape | None]:
    """The value at a path, the one that holds it, and what could stand there."""
    node: Written | None = root
    parent, here = root, shape if path else None
    current: Shape | None = shape
    for part in path:
        current = current.below(part, node) if current is not None else None
        parent = node or parent
        node = node.child(part) if node is not None else None
        here = current
    return node, parent, here if path else shape


def _expectation(errors: "list[ErrorDetails]", shape: Shape | None) -> str:
    texts: list[str] = []
    for error in errors:
        context = error.get("ctx", {})
        kind = error["type"]
        if kind in _EXPECTED:
            text = _EXPECTED[kind].format(**context)
        elif kind == "literal_error":
            text = context["expected"].replace("'", "")
            text = text if " or " not in text else f"one of {text}"
        elif kind == "value_error":
            text = str(context["error"]).removeprefix("expected ")
        elif kind in ("model_type", "model_attributes_type") and shape is not None and shape.sections:
            text = f"a mapping with {', '.join(field for one in shape.sections.values() for field in one.model_fields)}"
        else:
            text = error["msg"]
        if text not in texts:
            texts.append(text)
    return " or ".join(texts)


def _hint(errors: "list[ErrorDetails]", node: Written | None) -> str:
    word = node.value if node is not None else None
    choices = [
        choice
        for error in errors
        if error["type"] == "literal_error"
        for choice in error["ctx"]["expected"].replace("'", "").replace(" or ", ", ").split(", ")
    ]
    near = nearest(word, choices) if isinstance(word, str) else None
    return f". Did you mean {near}?" if near else ""


def _unknown_name(name: str, node: Written | None, shape: Shape) -> Problem:
    choices = f"one of {', '.join(shape.sections)}"
    place = node.place if node is not None else ""
    if node is None or not isinstance(node.value, dict):
        return Problem(place, f"{name} is {node.shown() if node else 'null'}, expected {choices}, or a mapping")
    said = node.child("name")
    if said is None:
        return Problem(place, f"{name}.name is missing, expected {choices}")
    message = f"{name}.name is {said.shown()}, expected {choices}"
    if not isinstance(said.value, str):
        return Problem(said.place, message)
    near = nearest(said.value, (choice for choice in shape.sections if choice != MODULE_FUNCTION))
    if said.value in NAMES:
        message += f": {NAMES[said.value]}"
    elif near:
        message += f". Did you mean {near}?"
    return Problem(said.place, message)


def unknown_key(path: Path, parent: Written, shape: Shape | None) -> str:
    """That a key does not exist, and which was probably meant."""
    key, above = str(path[-1]), dotted(path[:-1])
    section = shape.section(parent) if shape is not None else None
    own = list(section.model_fields) if section is not None else []
    own += [] if above else ["extends", "stages"]
    member = parent.child("name")
    of = f"a field of {above}" if above else "a section of a recipe"
    if shape is not None and len(shape.sections) > 1 and member is not None:
        of = f"a field of {above}: {member.value}"
    return f"{dotted(path)} is not {of}. {_meant(key, above, own, shape)}"


def _meant(key: str, above: str, own: list[str], shape: Shape | None) -> str:
    siblings = [name for name, member in (shape.sections if shape else {}).items() if key in member.model_fields]
    if siblings:
        return f"It belongs to {above}: {' or '.join(siblings)}."
    if key in _all_paths():
        return f"{key} belongs at the top of the recipe, in no section."
    owners = _owners(key)
    if 0 < len(owners) <= MAX_OWNERS:
        return f"{key} belongs under {' or '.join(owners)}."
    for foreign in (f"{above}.{key}".lower(), key.lower()):
        if foreign in RENAMED:
            return f"In ftk it is {RENAMED[foreign]}."
        if foreign in NOT_NEEDED:
            return f"It is not needed: {NOT_NEEDED[foreign]}."
    near = nearest(key, own)
    if near:
        return f"Did you mean {near}?"
    elsewhere = {known.rsplit(".", 1)[-1]: known for known in _all_paths()}
    far = nearest(key, elsewhere)
    return f"Did you mean {elsewhere[far]}?" if far else f"There are: {', '.join(own)}."


def _owners(key: str) -> list[str]:
    """The sections that have such a field."""
    return list(dict.fromkeys(path.rpartition(".")[0] for path in _all_paths() if path.endswith(f".{key}")))


def _all_paths() -> list[str]:
    from ftk.recipe.schema import Recipe

    return [path for path, _, _ in fields(Recipe)]
