"""`ftk data check`: rows among others, of their own set, held-out ones, benchmarks and real use."""

from collections.abc import Callable
from pathlib import Path

from check_stand_in import Check, Row, found, only, plain, qa

from ftk.runs.check_data import check_data
from ftk.runs.check_plan import CheckRequest


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


def test_preferences_that_training_refuses_are_errors(check: Check) -> None:
    def talk(*said: str) -> list[Row]:
        return [{"role": "assistant" if n % 2 else "user", "content": text} for n, text in enumerate(said)]

    pair = {"prompt": "A?", "chosen": "x", "rejected": "y"}
    calling = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}
    broken: list[tuple[Row, str]] = [
        ({"chosen": talk("A?", "x"), "rejected": talk("B?", "y")}, "different prompts"),
        ({"chosen": talk("A?", "x", "B?", "x"), "rejected": talk("A?", "x", "C?", "y")}, "from message 3 on"),
        ({**pair, "chosen": [{**talk("", "x")[1], "weight": 0.5}]}, "chosen has a message of weight 0.5"),
        ({**pair, "rejected": [{**talk("", "y")[1], "train": False}]}, "rejected has no message that is compared"),
        ({**pair, "chosen": [calling]}, "calls the tool f, and the row has no tools"),
    ]
    report = check([pair, *(row for row, _ in broken)])
    (finding,) = report.findings
    assert (finding.kind, finding.severity, finding.rows) == ("unreadable", "error", (2, 3, 4, 5, 6))
    for told, (_, message) in zip(finding.details, broken, strict=True):
        assert message in told
    ranked = {"prompt": "A?", "ranked": ["x", "y", "x"]}
    assert "answer 1 and answer 3 are equal" in check([ranked]).findings[0].details[0]
    unrated = {"prompt": "A?", "completions": [], "ratings": []}
    assert found(check([unrated]), "empty") == [("error", 1, (1,))]
    single = {"prompt": "A?", "completion": [{**talk("", "x")[1], "weight": 0.5}], "label": True}
    assert "completion has a message of weight 0.5" in check([single]).findings[0].details[0]


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


def test_overlap_with_the_first_row(check: Check, write: Callable[..., str]) -> None:
    report = check([plain(1)], eval=write("eval.jsonl", [plain(1)]))
    assert found(report, "train_eval_overlap") == [("error", 1, (1,))]
