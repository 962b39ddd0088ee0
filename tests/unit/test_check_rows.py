"""Each kind of finding: rows of which it is true, and like ones of which it is not."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from ftk.core.errors import DataError, RecipeError
from ftk.data.check.finding import Finding
from ftk.data.check.scan import ROWS_AT_ONCE
from ftk.runs.check_data import DataReport, check_data
from ftk.runs.check_plan import CheckRequest

Row = dict[str, Any]
Check = Callable[..., DataReport]
ANSWERS = ("The town lies at the river.", "A week has seven days.", "Iron is a metal.", "Snow falls in winter.")


def qa(question: str, answer: str | None) -> Row:
    return {"question": question, "answer": answer}


def plain(number: int) -> Row:
    """Rows of which nothing is to be said: they share neither prompts nor runs of words."""
    return qa(
        f"Tell me about thing number {number}, {'abcdefgh'[number % 8] * 3} {number * 7}!",
        f"It is {number * 13}, of kind {number % 7}.",
    )


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, Sequence[Row]], str]:
    def write(name: str, rows: Sequence[Row]) -> str:
        path = tmp_path / name
        path.write_text("".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows), encoding="utf-8")
        return str(path)

    return write


@pytest.fixture
def check(write: Callable[[str, Sequence[Row]], str]) -> Check:
    """Check rows as a data file without a model."""

    def check(rows: Sequence[Row], **request: Any) -> DataReport:
        return check_data(CheckRequest(target=write("rows.jsonl", rows), **request), tell=print)

    return check


def found(report: DataReport, kind: str) -> list[tuple[str, int, tuple[int, ...]]]:
    return [(one.severity, one.count, one.rows) for one in report.findings if one.kind == kind]


def only(report: DataReport, kind: str) -> Finding:
    (finding,) = [one for one in report.findings if one.kind == kind]
    return finding


def test_good_rows_have_no_findings(check: Check) -> None:
    report = check([plain(number) for number in range(40)])
    assert report.findings == ()
    assert report.num_rows == {"train": 40}


def test_exact_duplicates_are_the_later_rows(check: Check) -> None:
    report = check([plain(1), plain(2), {**plain(1), "id": 7}, plain(3), plain(1)])
    finding = only(report, "exact_duplicate")
    assert (finding.severity, finding.count, finding.rows) == ("warning", 2, (3, 5))
    assert finding.details[0].startswith("repeats ")
    assert finding.details[0].endswith("rows.jsonl:1")
    assert found(report, "near_duplicate") == []
    assert found(report, "contradiction") == []


def test_near_duplicates_are_told_apart_from_exact_ones(check: Check) -> None:
    long = " ".join(f"word{number}" for number in range(50))
    rows = [qa("Repeat:", long), plain(1), qa("repeat", f"{long}."), qa("Repeat:", long), qa("Repeat:", f"{long} end")]
    report = check(rows)
    assert found(report, "near_duplicate") == [("warning", 2, (3, 5))]
    assert found(report, "exact_duplicate") == [("warning", 1, (4,))]
    assert found(check(rows, near=False), "near_duplicate") == []


def test_duplicates_are_found_across_sources(write: Callable[..., str]) -> None:
    first, second = write("a.jsonl", [plain(1), plain(2)]), write("b.jsonl", [plain(3), plain(2)])
    recipe = Path(first).with_name("recipe.yaml")
    recipe.write_text(f"model: ftk://tiny\ndata: {{train: [{first}, {second}]}}\n")
    finding = only(check_data(CheckRequest(target=str(recipe)), tell=print), "exact_duplicate")
    assert (finding.source, finding.rows, finding.details) == (second, (2,), (f"repeats {first}:2",))


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
    report = check([plain(1), qa(["a"], "b"), plain(2)])  # type: ignore[arg-type]
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


def test_length_outliers_need_others_to_differ_from(check: Check) -> None:
    rows = [plain(number) for number in range(30)]
    report = check([*rows, qa("What is long?", "very " * 500 + "long."), qa("A?", "B")])
    assert sorted(found(report, "length_outlier")) == [("info", 1, (31,)), ("info", 1, (32,))]
    assert found(check([plain(1), qa("What is long?", "very " * 500 + "long.")]), "length_outlier") == []
    spread = report.lengths["train"]
    assert (spread.unit, spread.shortest, spread.longest) == ("characters", 3, 13 + 5 * 500 + 5)


def test_imbalance_of_labels(check: Check) -> None:
    def labelled(*counts: int) -> list[Row]:
        labels = [label for label, count in zip("abc", counts, strict=False) for _ in range(count)]
        return [qa(f"What is {number * 31}?", label) for number, label in enumerate(labels)]

    assert found(check(labelled(20, 20)), "imbalance") == []
    assert found(check(labelled(32, 8)), "imbalance") == []
    assert found(check(labelled(34, 6)), "imbalance") == [("warning", 6, tuple(range(35, 41)))]
    assert found(check(labelled(30, 30, 1)), "imbalance") == [("warning", 1, (61,))]


def test_imbalance_of_answer_types(check: Check) -> None:
    rows = [qa(f"What is {number}?", f'{{"number": {number}, "name": "something or other"}}') for number in range(30)]
    assert found(check(rows), "imbalance") == []
    assert found(check([*rows, qa("What is it?", "I'm sorry, I can't do that for you at all.")]), "imbalance") == [
        ("info", 1, (31,))
    ]


def test_contradictions_are_all_rows_of_the_prompt(check: Check) -> None:
    rows = [
        qa("2 + 2?", "4"),
        plain(1),
        qa("2 + 2?", "5"),
        qa("2 + 2?", "4"),
        qa("3 + 3?", "Six."),
        qa("3 + 3?", "six"),
    ]
    finding = only(check(rows), "contradiction")
    assert (finding.severity, finding.count, finding.rows) == ("warning", 3, (1, 3, 4))
    assert [detail.rpartition(":")[2] for detail in finding.details] == [
        "3 answers otherwise",
        "1 answers otherwise",
        "3 answers otherwise",
    ]


def test_contradictions_of_preferences(check: Check) -> None:
    def pair(prompt: str, chosen: str, rejected: str) -> Row:
        return {"prompt": prompt, "chosen": chosen, "rejected": rejected}

    report = check(
        [pair("A?", "x", "y"), pair("A?", "y", "x"), pair("A?", "x", "z"), pair("B?", "x", "y"), pair("C?", "x", "x")]
    )
    assert sorted(found(report, "contradiction")) == [("error", 1, (5,)), ("warning", 2, (1, 2))]
    labels = [{"prompt": "A?", "completion": "x", "label": number == 0} for number in range(2)]
    assert found(check(labels), "contradiction") == [("warning", 2, (1, 2))]
    assert found(check([pair("A?", "", "y")]), "empty") == [("error", 1, (1,))]


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


def test_overlap_with_held_out_rows(check: Check, write: Callable[..., str]) -> None:
    long = " ".join(f"word{number}" for number in range(60))
    held_out = write("eval.jsonl", [plain(2), plain(9), qa(plain(1)["question"], "Another."), qa("Say it now", long)])
    rows = [plain(1), plain(2), qa("Say it", long)]
    report = check(rows, eval=held_out)
    assert [(one.severity, one.source, one.part, one.rows) for one in report.findings] == [
        ("error", held_out, "eval", (1,)),
        ("warning", held_out, "eval", (3,)),
        ("warning", held_out, "eval", (4,)),
    ]
    assert {one.kind for one in report.findings} == {"train_eval_overlap"}
    assert report.findings[0].details[0].endswith("rows.jsonl:2")
    assert report.num_rows == {"train": 3, "eval": 4}
    assert len(check(rows, eval=held_out, near=False).findings) == 2


def test_overlap_with_benchmarks(check: Check, write: Callable[..., str]) -> None:
    item = "a train leaves the station at noon and goes sixty miles an hour until it meets another"
    benchmark = write("benchmark.jsonl", [qa("Unrelated, and of few words", "x"), qa(item.capitalize(), "At three.")])
    words = item.split()
    rows = [
        plain(1),
        qa(f"Once {' '.join(words[2:15])} ended.", "So it is."),  # 13 words of it
        qa(f"Once {' '.join(words[2:14])} ended.", "So it was."),  # 12 words
        qa("unrelated and of few words", "y"),  # a short text, whole
        qa("unrelated and of few words more", "z"),
    ]
    finding = only(check(rows, benchmarks=(benchmark,)), "train_eval_overlap")
    assert (finding.severity, finding.rows, finding.part) == ("warning", (2, 4), "train")
    assert finding.details == (f"as in {benchmark}:2", f"as in {benchmark}:1")


def test_against_real_use(check: Check, write: Callable[..., str]) -> None:
    rows = [qa(f"What is the price of item {number}?", f"It costs {number} euros.") for number in range(50)]
    prompts = [
        f"Translate this sentence about refunds, please, and keep to the tone of the original: {'so ' * n}"
        for n in range(30)
    ]
    prod = write("prod.jsonl", [{"prompt": prompt} for prompt in prompts])
    kinds = {one.kind: one for one in check(rows, against=prod).findings}
    assert set(kinds) == {"against_length", "against_missing", "against_vocabulary"}
    assert kinds["against_vocabulary"].count == 30
    assert "translate (30)" in kinds["against_vocabulary"].message
    assert "begin with 'translate' are 100% of real use and 0.0% of training" in kinds["against_missing"].message
    assert all((one.part, one.source, one.severity) == ("against", prod, "warning") for one in kinds.values())
    same = write("same.jsonl", [{"prompt": f"What is the price of item {number}?"} for number in range(20)])
    assert check(rows, against=same).findings == ()
    talks = write(
        "talks.jsonl",
        [
            {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": row["question"]}]}
            for row in rows
        ],
    )
    assert "system message" in only(check(rows, against=talks), "against_format").message


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


def test_overlap_with_the_first_row(check: Check, write: Callable[..., str]) -> None:
    report = check([plain(1)], eval=write("eval.jsonl", [plain(1)]))
    assert found(report, "train_eval_overlap") == [("error", 1, (1,))]
