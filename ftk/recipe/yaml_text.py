"""YAML with its traps closed: read as YAML 1.2 reads it, with the place of every value, and written back.

In YAML 1.1, which PyYAML reads by default, `1e-4` is text and `no` is false. Source: yaml.org/spec/1.2.2, section
10.3.2 (core schema).
"""

import re
from collections.abc import Mapping
from typing import Any, NoReturn

import yaml

from ftk.core.errors import RecipeError
from ftk.recipe.variables import VariableError, filled, has_variables
from ftk.recipe.written import Problem, Scalar, Written

MAX_BYTES = 1_000_000
"""Of a recipe file; a larger one is something else, given by mistake."""
MAX_VALUES = 10_000
"""Of a recipe with every alias written out. Nine lines of anchors can stand for a billion values."""

_TAG = "tag:yaml.org,2002:"
_SCALARS = {
    "null": (re.compile(r"~|null|Null|NULL|"), ["~", "n", "N", ""]),
    "bool": (re.compile(r"true|True|TRUE|false|False|FALSE"), list("tTfF")),
    "int": (re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+"), list("-+0123456789")),
    "float": (
        re.compile(
            r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
        ),
        list("-+.0123456789"),
    ),
}


class _Loader(yaml.SafeLoader):
    """Knows the plain words of YAML 1.2 alone."""


class _Dumper(yaml.SafeDumper):
    """Quotes text that YAML 1.1 or 1.2 would read as something else, and writes lists of scalars in one line."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


# Without those of YAML 1.1, by which `no` is false.
_Loader.yaml_implicit_resolvers = {}
for _kind, (_pattern, _first) in _SCALARS.items():
    _whole = re.compile(f"^(?:{_pattern.pattern})$")
    _Loader.add_implicit_resolver(_TAG + _kind, _whole, _first)
    _Dumper.add_implicit_resolver(_TAG + _kind, _whole, _first)


def _represent_list(dumper: yaml.SafeDumper, values: list[Any]) -> yaml.Node:
    in_one_line = not any(isinstance(value, dict | list) for value in values)
    return dumper.represent_sequence(_TAG + "seq", values, flow_style=in_one_line)


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    return dumper.represent_scalar(_TAG + "str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(list, _represent_list)
_Dumper.add_representer(str, _represent_text)


def write_yaml(data: object) -> str:
    """Plain mappings, lists and scalars as YAML, in the order given."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, default_flow_style=False, allow_unicode=True, width=120)


def decode(content: bytes, file: str) -> str:
    """The text of a recipe file.

    Raises:
        RecipeError: it is no UTF-8, or far too large for a recipe.
    """
    if len(content) > MAX_BYTES:
        raise RecipeError(f"is no recipe: {len(content)} bytes, expected at most {MAX_BYTES}", place=file)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        byte = content[error.start]
        raise RecipeError(
            f"not UTF-8 (byte 0x{byte:02x}). Save the file as UTF-8, or convert it: iconv -f latin1 -t utf-8",
            place=f"{file}:{line}",
        ) from error


def read_yaml(text: str, file: str, *, environment: Mapping[str, str], problems: list[Problem]) -> Written:
    """The one document in `text`, environment variables filled in.

    What is wrong in itself, such as a duplicate key, goes to `problems`.

    Raises:
        RecipeError: it is no YAML, or holds what a recipe cannot.
    """
    return _Reader(file, environment, problems).read(text)


def read_value(text: str, place: str, *, environment: Mapping[str, str], problems: list[Problem]) -> Written:
    """The value of an override, all of it at `place`.

    Raises:
        RecipeError: it is no YAML.
    """
    return _Reader(place, environment, problems, has_lines=False).read(text)


class _Reader:
    def __init__(
        self, file: str, environment: Mapping[str, str], problems: list[Problem], *, has_lines: bool = True
    ) -> None:
        self._file = file
        self._environment = environment
        self._problems = problems
        self._has_lines = has_lines
        self._num_values = 0
        self._above: list[yaml.Node] = []

    def read(self, text: str) -> Written:
        try:
            node = yaml.compose(text, Loader=_Loader)
        except yaml.reader.ReaderError as error:
            line = text.count("\n", 0, error.position) + 1
            self._refuse(line, f"character number {error.character} is not allowed in YAML")
        except yaml.MarkedYAMLError as error:
            is_left_open = "unexpected end of stream" in (error.problem or "")
            mark = error.context_mark if is_left_open else error.problem_mark
            self._refuse(mark.line + 1 if mark else 1, _explained(error))
        except RecursionError:
            self._refuse(1, "nested too deeply for a recipe")
        if node is None:
            return Written(None, self._place(1), text="")
        return self._written(node)

    def _place(self, line: int) -> str:
        return f"{self._file}:{line}" if self._has_lines else self._file

    def _refuse(self, line: int, message: str) -> NoReturn:
        raise RecipeError(message, place=self._place(line))

    def _written(self, node: yaml.Node) -> Written:
        line = node.start_mark.line + 1
        self._num_values += 1
        if self._num_values > MAX_VALUES:
            self._refuse(line, f"its aliases stand for more than {MAX_VALUES} values. Write them out, or use extends")
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, line)
        if node.tag not in (_TAG + "map", _TAG + "seq"):
            self._refuse(line, f"the tag {node.tag} is not part of recipes. Write the plain value")
        if any(node is above for above in self._above):
            self._refuse(line, "this anchor contains itself. Write the values out")
        self._above.append(node)
        value = self._mapping(node) if isinstance(node, yaml.MappingNode) else [self._written(n) for n in node.value]
        self._above.pop()
        return Written(value, self._place(line))

    def _mapping(self, node: yaml.MappingNode) -> dict[str, Written]:
        items: dict[str, Written] = {}
        lines: dict[str, int] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                self._refuse(line, "expected a plain name before the colon. Text with braces needs quotes")
            key = key_node.value
            if key == "<<":
                self._refuse(line, "merge keys (<<) are not part of YAML 1.2. Use extends, or write the values out")
            if key in lines:
                message = f"{key} is given twice, first on line {lines[key]}. Keep one"
                self._problems.append(Problem(self._place(line), message))
                continue
            lines[key] = line
            # A mapping's own place is its key's: that is where one looks for what is missing in it.
            value = self._written(value_node)
            items[key] = Written(value.value, self._place(line), text=value.text, source=value.source)
        return items

    def _scalar(self, node: yaml.ScalarNode, line: int) -> Written:
        kind = node.tag.removeprefix(_TAG)
        if kind not in (*_SCALARS, "str"):
            self._refuse(line, f"the tag {node.tag} is not part of recipes. Write the plain value")
        text = node.value
        if has_variables(text):
            return self._with_variables(text, line, is_plain=node.style is None)
        try:
            return Written(_read_scalar(text, kind), self._place(line), text=text)
        except ValueError:
            self._refuse(line, f"{text!r} is not of the type that its tag says")

    def _with_variables(self, source: str, line: int, *, is_plain: bool) -> Written:
        place = self._place(line)
        try:
            text = filled(source, self._environment)
        except VariableError as error:
            self._problems.append(Problem(place, str(error)))
            return Written(source, place, text=source, source=source)
        value = _read_scalar(text, _kind_of(text)) if is_plain else text
        return Written(value, place, text=text, source=source)


def _kind_of(text: str) -> str:
    return next((kind for kind, (pattern, _) in _SCALARS.items() if pattern.fullmatch(text)), "str")


def _read_scalar(text: str, kind: str) -> Scalar:
    match kind:
        case "null":
            return None
        case "bool":
            return text.lower() == "true"
        case "int":
            return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
        case "float":
            return float(text.replace(".inf", "inf").replace(".nan", "nan") if text[-1].isalpha() else text)
        case _:
            return text


def _explained(error: yaml.MarkedYAMLError) -> str:
    problem = error.problem or "cannot be read"
    if r"'\t'" in problem:
        return "a tab where YAML expects spaces. Indent with spaces"
    if "could not determine a constructor" in problem:
        return f"not a recipe: {problem}"
    hint = ""
    if "mapping values are not allowed" in problem:
        hint = ". Is the line indented too far, or does text with a colon lack its quotes?"
    elif "unexpected end of stream" in problem:
        return "this quote is never closed"
    elif "expected <block end>" in problem:
        hint = ". Is the line indented otherwise than those above?"
    elif "but got '{'" in problem:
        hint = '. Within braces and brackets write "${NAME}" in quotes'
    elif "expected ',' or" in problem or "while parsing a flow" in (error.context or ""):
        hint = ". Is a bracket, a brace or a quote left open?"
    elif "expected a single document" in problem or "but found another document" in problem:
        return "a second document (---) starts here. A file holds one"
    elif "found undefined alias" in problem:
        hint = ". Text that starts with * needs quotes"
    return f"not valid YAML: {problem}{hint}"
