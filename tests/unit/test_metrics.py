"""Metrics of answers: fixed points by hand, and independent definitions."""

import math
import random
import sys
import types
from functools import cache

import pytest
from pydantic import ValidationError

from ftk.core.errors import DataError, RecipeError, RunError
from ftk.evaluation.metrics.custom import CustomMetric
from ftk.evaluation.metrics.exact_match import ExactMatch, exact_match
from ftk.evaluation.metrics.extract import plain_number
from ftk.evaluation.metrics.json_fields import JsonFields, json_fields, same_json
from ftk.evaluation.metrics.json_valid import json_valid, parse_json
from ftk.evaluation.metrics.rouge_l import lcs_length, rouge_l, rouge_words
from ftk.evaluation.metrics.squad import F1, ExactMatchSquad, exact_match_squad, f1
from ftk.evaluation.settings import EvaluationSettings

ROW: list[dict[str, object]] = [{}]


@pytest.mark.parametrize(
    ("answer", "reference", "value"),
    [
        (" a b\n", "a b", 1.0),
        ("a  b", "a b", 0.0),
        ("A", "a", 0.0),
        ('{"a": 1}', '{"a":1}', 0.0),
        ("caf\u0065\u0301", "caf\u00e9", 1.0),
        ("\ufb01", "fi", 0.0),  # NFC composes, it does not fold compatibility characters as NFKC does
        ("", "", 1.0),
    ],
)
def test_exact_match_knows_only_outer_white_space_and_composition(answer, reference, value):
    assert exact_match(answer, reference) == value


def test_extract_compares_group_one_of_the_first_match():
    metric = ExactMatch(extract=r"#### (-?[0-9.,]+)", numbers=True)
    answers = ["so 3*4=12\n#### 1,200", "#### 7\n\nQuestion: ...\n#### 9", "the answer is 12", "#### 12.00", "#### 0"]
    references = ["#### 1200", "#### 7", "#### 12", "#### 12", "#### -0.0"]
    assert metric.score(answers, references, ROW * 5)["exact_match"] == [1, 1, 0, 1, 1]


def test_a_reference_without_a_match_is_an_error_with_its_row():
    with pytest.raises(DataError, match=r"evaluation row 2 .* so no answer to it could be right"):
        ExactMatch(extract="#### (.+)").score(["#### 1", "#### 2"], ["#### 1", "two"], ROW * 2)
    with pytest.raises(DataError, match="row 1"):
        F1(extract="#### (.+)").score(["x"], ["two"], ROW)


@pytest.mark.parametrize(
    ("text", "number"),
    [("1,200", "1200"), ("1200.", "1200"), ("1,2", "1,2"), ("72.50", "72.5"), ("1,234,567", "1234567"), ("x", "x"),
     ("-0.0", "0"), ("0100", "100"), ("inf", "inf"), ("1e2", "100"), (" 5 ", "5")],
)  # fmt: skip
def test_plain_number(text, number):
    assert plain_number(text) == number


# Values of the SQuAD 2.0 evaluation script's definition, by hand.
@pytest.mark.parametrize(
    ("answer", "reference", "em", "overlap"),
    [
        ("The Eiffel Tower!", "eiffel tower", 1.0, 1.0),
        ("in Paris, France", "Paris", 0.0, 2 * (1 / 3) * 1 / (1 / 3 + 1)),
        ("Paris Paris", "Paris", 0.0, 2 * 0.5 * 1 / 1.5),
        ("cat", "dog", 0.0, 0.0),
        ("the", "a", 1.0, 1.0),  # both without a word
        ("the", "cat", 0.0, 0.0),
        ("theatre an-other", "theatre another", 1.0, 1.0),  # articles are whole words; punctuation goes first
    ],
)
def test_squad_metrics_by_hand(answer, reference, em, overlap):
    assert exact_match_squad(answer, reference) == em
    assert f1(answer, reference) == pytest.approx(overlap, abs=1e-15)


def test_squad_metrics_are_no_test_of_json():
    assert exact_match_squad('{"a": 1}', "a 1") == exact_match_squad('"1"', "1") == 1.0
    assert exact_match('{"a": 1}', "a 1") == 0.0


@cache
def _lcs_by_definition(first: tuple[str, ...], second: tuple[str, ...]) -> int:
    if not first or not second:
        return 0
    if first[-1] == second[-1]:
        return 1 + _lcs_by_definition(first[:-1], second[:-1])
    return max(_lcs_by_definition(first[:-1], second), _lcs_by_definition(first, second[:-1]))


def test_bit_parallel_lcs_equals_the_recursive_definition():
    draw = random.Random(0)
    for _ in range(500):
        first, second = ("".join(draw.choices("abcd", k=draw.randrange(0, 12))) for _ in range(2))
        assert lcs_length(first, second) == _lcs_by_definition(tuple(first), tuple(second)), (first, second)


def test_rouge_l_of_lins_example():
    # Lin 2004, section 3.1: S1 against S2 and S3; 3 of 4 words in order, then 2 of 4; precision equals recall.
    assert rouge_l("police kill the gunman", "police killed the gunman") == 3 / 4
    assert rouge_l("the gunman kill police", "police killed the gunman") == 2 / 4
    # Precision 2/3, recall 2/4.
    assert rouge_l("a b x", "a b c d") == pytest.approx(2 * (2 / 3) * (2 / 4) / (2 / 3 + 2 / 4))
    assert rouge_l("", "a") == rouge_l("a", "") == 0.0


def test_rouge_words():
    assert rouge_words("Don't PANIC_now, été 42!") == ["don", "t", "panic", "now", "été", "42"]


@pytest.mark.parametrize("text", ['{"a": [1, 2.5e3, null, true]}', ' "x"\n', "9" * 5000, "-0"])
def test_json_valid(text):
    assert json_valid(text) == 1.0


@pytest.mark.parametrize(
    "text", ["", "{'a': 1}", "NaN", "-Infinity", '{"a": 1} ok', "[1,]", "01", "[" * 100_000, '"\n"', "```json\n{}\n```"]
)
def test_json_invalid(text):
    assert json_valid(text) == 0.0


def test_same_json_keeps_kinds_apart():
    assert same_json(parse_json('{"a": 1, "b": [2]}'), parse_json('{"b": [2.0], "a": 1}'))
    assert not same_json(parse_json("true"), parse_json("1"))
    assert not same_json(parse_json("[1, 2]"), parse_json("[2, 1]"))
    assert not same_json(parse_json('"1"'), parse_json("1"))
    assert not same_json(parse_json('{"a": {"b": 1}}'), parse_json('{"a": {"b": true}}'))
    assert not same_json(parse_json("null"), parse_json('""'))


def test_json_fields_counts_the_references_fields():
    reference = parse_json('{"city": "Bern", "quantity": 2, "date": null}')
    assert json_fields('{"city": "Bern", "quantity": "2", "more": 1}', reference) == {
        "city": True,
        "quantity": False,
        "date": False,  # missing is not null
    }
    scores = JsonFields().score(
        ['{"city": "Bern", "quantity": 3}', "no JSON", "[1]"],
        ['{"city": "Bern", "quantity": 2}', '{"city": "Bern"}', '{"city": "Bern"}'],
        ROW * 3,
    )
    assert scores["json_fields"] == [0.5, 0, 0]
    assert scores["json_fields.city"] == [1, 0, 0]
    assert scores["json_fields.quantity"][0] == 0
    assert all(math.isnan(value) for value in scores["json_fields.quantity"][1:])


@pytest.mark.parametrize("reference", ["Bern", "[1]", "{}"])
def test_json_fields_wants_objects_as_references(reference):
    with pytest.raises(DataError, match="evaluation row 1"):
        JsonFields().score(["{}"], [reference], ROW)


@pytest.fixture
def own_metrics(monkeypatch):
    module = types.ModuleType("own_metrics")
    module.longer = lambda answer, reference, row: len(answer) > row["limit"]
    module.broken = lambda answer, reference, row: 1 / 0
    module.worded = lambda answer, reference, row: "good"
    monkeypatch.setitem(sys.modules, "own_metrics", module)


@pytest.mark.usefixtures("own_metrics")
def test_a_metric_of_the_users_own_sees_the_row():
    metric = CustomMetric(name="own_metrics:longer")
    assert metric.score(["abc", "a"], ["", ""], [{"limit": 2}, {"limit": 2}]) == {"own_metrics:longer": [1.0, 0.0]}


@pytest.mark.usefixtures("own_metrics")
def test_a_metric_of_the_users_own_that_fails_says_so():
    with pytest.raises(RunError, match="own_metrics:broken failed on evaluation row 1: ZeroDivisionError"):
        CustomMetric(name="own_metrics:broken").score(["a"], ["a"], ROW)
    with pytest.raises(RunError, match="returned 'good'"):
        CustomMetric(name="own_metrics:worded").score(["a"], ["a"], ROW)
    with pytest.raises(RecipeError, match="Did you mean own_metrics:longer"):
        CustomMetric(name="own_metrics:longr").score(["a"], ["a"], ROW)
    with pytest.raises(RecipeError, match="there is no module no_such_module"):
        CustomMetric(name="no_such_module:f").load()


def test_a_module_in_the_working_directory_is_found(tmp_path, monkeypatch):
    (tmp_path / "metrics_lying_here.py").write_text("def half(answer, reference, row):\n    return 0.5\n")
    (tmp_path / "metric_that_breaks.py").write_text("import no_such_dependency\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert CustomMetric(name="metrics_lying_here:half").score(["a"], ["a"], ROW) == {"metrics_lying_here:half": [0.5]}
    with pytest.raises(RecipeError, match="needs no_such_dependency"):
        CustomMetric(name="metric_that_breaks:half").load()


def test_plain_words_and_mappings_in_settings():
    settings = EvaluationSettings.model_validate(
        {"metrics": ["exact_match_squad", {"name": "f1", "extract": "(a)"}, "own_metrics:longer"]}
    )
    assert settings.metrics == (ExactMatchSquad(), F1(extract="(a)"), CustomMetric(name="own_metrics:longer"))


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        (["exact"], "exact_match"),
        ([{"name": "exact_match", "extract": "a("}], "not a regular expression"),
        ([{"name": "exact_match", "extract": "a"}], "no group"),
        (["f1", {"name": "f1", "extract": "(a)"}], "more than once"),
        (["a:b c"], "pattern"),
    ],
)
def test_wrong_metrics_are_refused(metrics, message):
    with pytest.raises(ValidationError, match=message):
        EvaluationSettings.model_validate({"metrics": metrics})
