"""`ftk data check`: single rows."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from check_stand_in import ANSWERS, Check, Row, found, only, plain, qa

from ftk.core.errors import DataError, RecipeError
from ftk.data.check.casing import style
from ftk.data.check.scan import ROWS_AT_ONCE
from ftk.runs.check_data import check_data
from ftk.runs.check_plan import CheckRequest


def test_good_rows_have_no_findings(check: Check) -> None:
    report = check([plain(number) for number in range(40)])
    assert report.findings == ()
    assert report.num_rows == {"train": 40}


def test_rows_are_numbered_by_their_lines(check: Check, tmp_path: Path) -> None:
    path = tmp_path / "gaps.jsonl"
    path.write_text(f"{json.dumps(plain(1))}\n\n\n{json.dumps(plain(1))}\n")
    report = check_data(CheckRequest(target=str(path)), tell=print)
    assert only(report, "exact_duplicate").rows == (4,)


def test_empty_sides_are_errors(check: Check) -> None:
    rows = [plain(1), qa("", "x"), qa("What?", " \n"), qa("What?", None), {"question": "Where?"}, qa("", "")]
    report = check(rows)
    by_message = {one.message.partition(":")[0]: one.rows for one in report.findings if one.kind == "empty"}
    assert by_message == {
        "the prompt is empty": (2,),
        "the answer is empty": (3, 4, 5),
        "the row is empty": (6,),
    }
    assert {one.severity for one in report.findings if one.kind == "empty"} == {"error"}


def test_messages_without_a_side(check: Check) -> None:
    def talk(*said: tuple[str, str | None]) -> Row:
        return {"messages": [{"role": role, "content": content} for role, content in said]}

    report = check(
        [
            talk(("user", "Hello there"), ("assistant", "Hi")),
            talk(("user", "Are you there?")),
            talk(("assistant", "I begin")),
            talk(("user", "One"), ("assistant", None)),
            talk(("user", "Two"), ("assistant", "2"), ("user", "Three")),
            talk(("user", "Four"), ("assistant", ""), ("user", "Five"), ("assistant", "5")),
        ]
    )
    assert sorted((one.severity, one.rows) for one in report.findings if one.kind == "empty") == [
        ("error", (2, 4)),
        ("error", (3,)),
        ("warning", (5,)),
        ("warning", (6,)),
    ]


def test_rows_that_do_not_read_are_told_of(check: Check) -> None:
    report = check([plain(1), qa(["a"], "b"), plain(2)])
    finding = only(report, "unreadable")
    assert (finding.severity, finding.rows, finding.details) == ("error", (2,), ("the prompt is list, expected text",))


@pytest.mark.parametrize(
    ("answer", "severity"),
    [
        ("zero\u200bwidth", "warning"),
        ("a\x00b", "warning"),
        ("\ufeffbyte order mark", "warning"),
        (" leading", "info"),
        ("trailing\n", "info"),
        ("many    spaces", "info"),
        ("many\n\n\n\nlines", "info"),
        ("carriage\r\nreturn", "info"),
        ("no-break\xa0space", "info"),
    ],
)
def test_whitespace(check: Check, answer: str, severity: str) -> None:
    assert found(check([plain(1), qa("What?", answer)]), "whitespace") == [(severity, 1, (2,))]


@pytest.mark.parametrize("answer", ["def f():\n    return 1", "a\tb", "👨\u200d👩\u200d👧", "one\n\ntwo", "naïve Zoë"])
def test_white_space_that_is_meant(check: Check, answer: str) -> None:
    assert found(check([plain(1), qa("What?", answer)]), "whitespace") == []


def test_casing_of_labels(check: Check) -> None:
    rows = [qa(f"Is {number} so?", "Yes" if number % 2 else "No") for number in range(10)]
    report = check([*rows, qa("Is it?", "yes"), qa("Is he?", "NO")])
    finding = only(report, "casing")
    assert (finding.severity, finding.rows) == ("warning", (11, 12))
    assert finding.details == ("'yes', mostly 'Yes'", "'NO', mostly 'No'")


@pytest.mark.parametrize("accent", ["", "é"])
def test_styles_of_texts(accent: str) -> None:
    small = f"some words, {accent}12"
    assert [style(text) for text in (small.upper(), small, small.title())] == [1, 2, 3]
    assert style("1234567890.12") == style("日本" * 6) == style("short") == 0


def test_casing_of_texts(check: Check) -> None:
    rows = [qa(f"What is number {number}?", f"{ANSWERS[number % 4]} {number}") for number in range(20)]
    report = check([*rows, qa("WHAT IS THIS THING?", ANSWERS[0]), qa("What is that?", "it is a small town.")])
    assert sorted(found(report, "casing")) == [("info", 1, (21,)), ("info", 1, (22,))]


def test_encodings(check: Check) -> None:
    good = "Ça va, naïve Ãngela, Â, 5 €"
    report = check(
        [qa("A?", good), qa("B?", "cafÃ©"), qa("C?", "donâ€™t"), qa("D?", "lost \ufffd"), qa("E?", "cafe\u0301")]
    )
    assert sorted(found(report, "casing")) == [("info", 1, (5,)), ("warning", 3, (2, 3, 4))]


def test_answers_that_stop_in_mid_sentence(check: Check) -> None:
    rows = [
        qa(f"What of {number}?", f"{number} is a number, as all of the others are. {ANSWERS[number % 4]}")
        for number in range(20)
    ]
    report = check([*rows, qa("What of it?", "It is one of those things that people often")])
    assert found(report, "no_end") == [("warning", 1, (21,))]


def test_known_special_tokens(check: Check) -> None:
    report = check([qa("Say <|im_end|>", "ok"), qa("Is a < b | c > d?", "<b>no</b> [1]"), qa("Hi", "there</s>")])
    assert sorted(found(report, "special_token_leak")) == [("warning", 1, (1,)), ("warning", 1, (3,))]


def test_documents_of_plain_text(check: Check) -> None:
    report = check([{"text": "One document."}, {"text": ""}, {"text": "One document."}])
    assert found(report, "empty") == [("error", 1, (2,))]
    assert found(report, "exact_duplicate") == [("warning", 1, (3,))]


def test_rows_listed_are_bounded_and_all_are_counted(check: Check) -> None:
    report = check([plain(number % 2) for number in range(250)], near=False)
    finding = only(report, "exact_duplicate")
    assert (finding.count, len(finding.rows), finding.rows[-1], len(finding.details)) == (248, 100, 102, 100)


def test_several_processes_find_the_same(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [plain(number % 2999) for number in range(2 * ROWS_AT_ONCE + 10)] + [qa("What?", " ")]
    alone = check(rows, num_processes=1)
    monkeypatch.setattr("ftk.data.check.scan._CHUNKS_ALONE", 1)
    together = check(rows, num_processes=2)
    assert together.findings == alone.findings
    assert found(alone, "empty") == [("error", 1, (len(rows),))]
    assert found(alone, "exact_duplicate")[0][1] == len(rows) - 1 - 2999


def test_what_looks_at_rows_does_not_load_torch() -> None:
    program = "import sys, ftk.data.check, ftk.data.check.scan, ftk.data.check.near_duplicates; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not {"torch", "transformers", "datasets"} & set(done.stdout.split())


def test_bad_input_is_refused(check: Check, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="of no known format"):
        check([{"a": 1}])
    with pytest.raises(DataError, match=r"rows.jsonl:\d+: the line is not JSON|the file is empty"):
        check([])
    with pytest.raises(DataError, match=r"missing.jsonl: "):
        check_data(CheckRequest(target=str(tmp_path / "missing.jsonl")), tell=print)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("model: ftk://tiny\ndata: {train: ftk://orders/train}\n")
    with pytest.raises(RecipeError, match="--format and --columns are for data files"):
        check_data(CheckRequest(target=str(recipe), format="messages"), tell=print)
