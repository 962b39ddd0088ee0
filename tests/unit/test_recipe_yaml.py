"""YAML's traps are closed, and every value knows its line."""

import pytest
import yaml

from ftk.core.errors import RecipeError
from ftk.recipe.written import Problem, Written
from ftk.recipe.yaml_text import MAX_BYTES, decode, read_yaml, write_yaml


def read(text: str, environment: dict[str, str] | None = None) -> tuple[Written, list[Problem]]:
    problems: list[Problem] = []
    return read_yaml(text, "r.yaml", environment=environment or {}, problems=problems), problems


def data(text: str, environment: dict[str, str] | None = None) -> object:
    written, problems = read(text, environment)
    assert problems == []
    return written.data()


def test_yaml_number_without_a_point_is_a_float():
    """known_bugs: YAML number."""
    assert isinstance(yaml.safe_load("1e-4"), str), "PyYAML alone reads text, which is the trap"
    value = data("a: 1e-4")["a"]
    assert value == 1e-4
    assert isinstance(value, float)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("no", "no"),
        ("on", "on"),
        ("Yes", "Yes"),
        ("true", True),
        ("FALSE", False),
        ("~", None),
        ("", None),
        ("null", None),
        ("'null'", "null"),
        ("12", 12),
        ("-3", -3),
        ("010", 10),
        ("0x1F", 31),
        ("0o17", 15),
        (".5", 0.5),
        ("1.", 1.0),
        ("2.5E+3", 2500.0),
        ("1e5", 1e5),
        ("1:30", "1:30"),
        ("2020-01-01", "2020-01-01"),
        ("1 epoch", "1 epoch"),
        ("'5'", "5"),
        ("!!str 5", "5"),
        ("12e4567x", "12e4567x"),
        ("=", "="),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text, expected):
    value = data(f"a: {text}")["a"]
    assert value == expected
    assert type(value) is type(expected)


def test_duplicate_key_names_both_lines():
    _, problems = read("a: 1\nb: 2\nc:\n  d: 1\n  d: 2\na: 3\n")
    assert problems == [
        Problem("r.yaml:5", "d is given twice, first on line 4. Keep one"),
        Problem("r.yaml:6", "a is given twice, first on line 1. Keep one"),
    ]


@pytest.mark.parametrize(
    ("text", "place", "part"),
    [
        ("a:\n\tb: 1", "r.yaml:2", "a tab where YAML expects spaces"),
        ("a: [1, 2\nb: 3", "r.yaml:2", "left open"),
        ("a: b: c", "r.yaml:1", "mapping values are not allowed"),
        ("a: 1\n---\nb: 2", "r.yaml:2", "second document"),
        ("x: 1\na: 'abc\nb: 1\n", "r.yaml:2", "quote is never closed"),
        ("a: 1\nb: *x", "r.yaml:2", "undefined alias"),
        ("a: !!python/object:os.system x", "r.yaml:1", "not part of recipes"),
        ("a: !!python/object/apply:os.system ['x']", "r.yaml:1", "not part of recipes"),
        ("<<: {a: 1}", "r.yaml:1", "Use extends"),
        ("a: &a\n  b: *a", "r.yaml:1", "contains itself"),
        ("? [a, b]\n: 1", "r.yaml:1", "expected a plain name"),
        ("a: 1\nb: \x00", "r.yaml:2", "not allowed in YAML"),
        ("[" * 5000, "r.yaml:1", "nested too deeply"),
        ("{a: ${N}}", "r.yaml:1", 'write "${NAME}" in quotes'),
    ],
)
def test_broken_yaml_says_line_and_remedy(text, place, part):
    with pytest.raises(RecipeError) as caught:
        read(text)
    assert caught.value.place == place
    assert part in caught.value.message


def test_anchor_bomb_is_refused():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    with pytest.raises(RecipeError, match="aliases stand for more than"):
        read("\n".join(lines))


def test_a_plain_alias_is_taken():
    assert data("a: &x [1, 2]\nb: *x") == {"a": [1, 2], "b": [1, 2]}


def test_not_utf8_names_the_line():
    with pytest.raises(RecipeError, match="not UTF-8") as caught:
        decode("a: 1\nb: é\n".encode("latin-1"), "r.yaml")
    assert caught.value.place == "r.yaml:2"


def test_byte_order_mark_is_dropped_and_a_huge_file_refused():
    assert decode(b"\xef\xbb\xbfa: 1", "r.yaml") == "a: 1"
    with pytest.raises(RecipeError, match="is no recipe"):
        decode(b"x" * (MAX_BYTES + 1), "r.yaml")


def test_environment_variables_fill_in_and_keep_what_was_written():
    written, problems = read('a: "${X}/y"\nb: ${N}\nc: "${N}"\nd: $${X}\ne: [p, "${X}"]', {"X": "secret", "N": "3"})
    assert problems == []
    assert written.data() == {"a": "secret/y", "b": 3, "c": "3", "d": "${X}", "e": ["p", "secret"]}
    assert {path: node.source for path, node in written.walk() if node.source and node.source != node.text} == {
        ("a",): "${X}/y",
        ("b",): "${N}",
        ("c",): "${N}",
        ("d",): "$${X}",
        ("e", 1): "${X}",
    }


def test_a_variable_cannot_bring_structure():
    assert data("a: ${X}", {"X": "{b: 1}"}) == {"a": "{b: 1}"}


@pytest.mark.parametrize("text", ["${UNSET}", "x/${UNSET}", "${no-name}", "${open", "${}"])
def test_unset_or_malformed_variable_is_an_error(text):
    _, problems = read(f"a: 1\nb: {text}")
    assert [problem.place for problem in problems] == ["r.yaml:2"]


@pytest.mark.parametrize(
    "value",
    ["no", "1e-4", "1e5", "true", "", "x: y", "0x10", "null", "a\nb\n", "a\nb", " lead", "#x", "é", "12", "- a", "'"],
)
def test_written_text_reads_back_as_the_same_text(value):
    original = {"a": value, "b": [value, 1], "c": {"d": value}}
    written = write_yaml(original)
    assert data(written) == original
    assert yaml.safe_load(write_yaml({"a": "no"})) == {"a": "no"}, "other tools read YAML 1.1"


@pytest.mark.parametrize("value", [1e-4, 1e-5, 1e22, 3, 2.5, True, None, [], {}, [1, 2], [{"a": 1}], -0.1])
def test_written_values_read_back(value):
    again = data(write_yaml({"a": value}))["a"]
    assert again == value
    assert type(again) is type(value)
