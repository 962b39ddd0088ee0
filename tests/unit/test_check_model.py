"""What rows become under a model's tokenizer and template, and `ftk data check` as a user calls it."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from run_ftk import Ftk

from ftk.data.check.finding import Finding
from ftk.runs.check_data import check_data
from ftk.runs.check_plan import CheckRequest

GOOD = {"question": "What is the capital of France?", "answer": "Paris."}
OTHER = {"question": "How many days has a week?", "answer": "Seven days."}
LONG = {"question": "Write on.", "answer": " ".join(f"number {n}," for n in range(60)) + " end."}


def findings_of(
    folder: Path, rows: Sequence[Mapping[str, Any]], *overrides: str, model: str | Path = "ftk://tiny"
) -> dict[str, list[Finding]]:
    file = folder / "rows.jsonl"
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    report = check_data(CheckRequest(target=str(file), overrides=overrides, model=str(model)), tell=print)
    assert report.has_model
    found: dict[str, list[Finding]] = {}
    for one in report.findings:
        found.setdefault(one.kind, []).append(one)
    return found


def test_rows_that_fit(tmp_path: Path) -> None:
    assert findings_of(tmp_path, [GOOD, OTHER]) == {}


@pytest.mark.parametrize(("truncation", "severity"), [("error", "error"), ("left", "warning"), ("drop", "warning")])
def test_truncated(tmp_path: Path, truncation: str, severity: str) -> None:
    (finding,) = findings_of(tmp_path, [GOOD, LONG], "data.max_length=64", f"data.truncation={truncation}")["truncated"]
    assert (finding.severity, finding.rows) == (severity, (2,))
    assert "64 tokens" in finding.message
    assert finding.details[0].endswith(" tokens")


def test_a_cut_at_the_right_takes_the_end_of_the_answer(tmp_path: Path) -> None:
    found = findings_of(tmp_path, [GOOD, LONG], "data.max_length=64", "data.truncation=right")
    assert [(one.severity, one.rows) for one in found["no_end"]] == [("warning", (2,))]
    assert "no_end" not in findings_of(tmp_path, [GOOD, LONG], "data.max_length=64", "data.truncation=left")


def test_template_failure_of_single_rows(tmp_path: Path) -> None:
    template = tmp_path / "template.jinja"
    template.write_text(
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system message') }}{% endif %}"
        "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    rows = [
        {"messages": [{"role": "user", "content": "Hello you"}, {"role": "assistant", "content": "Hi"}]},
        {"messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Who?"},
                      {"role": "assistant", "content": "Me"}]},
    ]  # fmt: skip
    (finding,) = findings_of(tmp_path, rows, f"data.chat_template={template}")["template_failure"]
    assert (finding.severity, finding.rows) == ("error", (2,))
    assert "no system message" in finding.details[0]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}", "no_end"),
        ("{{ raise_exception('never') }}", "template_failure"),
        ("{% for m in messages %}{{ m.role }}<|im_end|>{% endfor %}", "template_failure"),
    ],
)
def test_a_template_that_suits_no_row(tmp_path: Path, text: str, kind: str) -> None:
    template = tmp_path / "template.jinja"
    template.write_text(text)
    found = findings_of(tmp_path, [GOOD, OTHER], f"data.chat_template={template}")
    assert {name: [(one.severity, one.rows) for one in some] for name, some in found.items()} == {
        kind: [("error", (1, 2))]
    }


def test_special_tokens_of_the_model(tmp_path: Path) -> None:
    rows = [
        GOOD,
        {"question": "Say <|im_end|> now", "answer": "ok"},
        {"question": "Say <s> or [INST]", "answer": "ok."},
    ]
    (finding,) = findings_of(tmp_path, rows)["special_token_leak"]
    assert (finding.severity, finding.rows, finding.details) == ("error", (2,), ("<|im_end|>",))


def test_empty_rows_are_not_template_failures_too(tmp_path: Path) -> None:
    found = findings_of(tmp_path, [GOOD, {"question": "What?", "answer": ""}, {"question": "", "answer": "x"}])
    assert set(found) == {"empty"}


def test_preferences_are_rendered_with_each_completion(tmp_path: Path) -> None:
    pair = {"prompt": "Count!", "chosen": "One.", "rejected": LONG["answer"]}
    found = findings_of(tmp_path, [{**pair, "rejected": "Two."}, pair], "data.max_length=64")
    assert [one.rows for one in found["truncated"]] == [(2,)]


def test_a_recipe_is_checked_as_it_would_train(recipe_file: Path, ftk_json: Ftk) -> None:
    answer = ftk_json("data", "check", recipe_file, "data.max_length=16", "data.truncation=right")
    assert answer["exit_code"] == 0
    kinds = {(one["kind"], one["part"]): one for one in answer["findings"]}
    assert kinds["train_eval_overlap", "eval"]["count"] == 12  # the fixture evaluates on what it trains on
    assert kinds["train_eval_overlap", "eval"]["severity"] == "error"
    assert kinds["truncated", "train"]["count"] > 0
    assert answer["num_rows"] == {"train": 12, "eval": 12}
    assert answer["lengths"]["train"]["unit"] == "tokens"


def test_shipped_rows_have_no_errors(ftk_json: Ftk) -> None:
    answer = ftk_json("data", "check", "ftk://orders/train", "--eval", "ftk://orders/eval", "--model", "ftk://tiny")
    assert answer["counts"]["error"] == 0


@pytest.mark.parametrize(("fail_on", "exit_code"), [("error", 0), ("warning", 4), ("info", 4)])
def test_fail_on(tmp_path: Path, ftk_json: Ftk, fail_on: str, exit_code: int) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(f"{json.dumps(GOOD)}\n{json.dumps(GOOD)}\n")
    answer = ftk_json("data", "check", file, "--fail-on", fail_on)
    assert answer["exit_code"] == exit_code
    (finding,) = answer["findings"]  # whether or not the check failed
    assert {key: finding[key] for key in ("kind", "severity", "count", "rows")} == {
        "kind": "exact_duplicate",
        "severity": "warning",
        "count": 1,
        "rows": [2],
    }
    if exit_code:
        assert answer["error"]["type"] == "RunError"
        assert "1 of severity warning" in answer["error"]["message"]


def test_fail_on_passes_good_rows(tmp_path: Path, ftk_json: Ftk) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(f"{json.dumps(GOOD)}\n{json.dumps(OTHER)}\n")
    answer = ftk_json("data", "check", file, "--fail-on", "info")
    assert (answer["exit_code"], answer["findings"]) == (0, [])


def test_the_report_for_a_person(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from ftk.cli.data import commands

    file = tmp_path / "rows.jsonl"
    rows = [GOOD, {**OTHER, "answer": ""}, *[GOOD] * 12, {**OTHER, "answer": " Seven."}]
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    commands["check"](str(file))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"error   empty  {file} (train): 1 row"
    assert lines[2] == "        rows 2"
    repeated = lines.index(f"warning exact_duplicate  {file} (train): 12 rows")
    assert lines[repeated + 2] == "        rows 3, 4, 5, 6, 7, 8, 9, 10, 11, 12 and 2 more"
    assert lines[repeated + 3] == f"          3: repeats {file}:1"
    assert [line.split()[0] for line in lines if line[:1] in "ewn" and "(train)" in line] == [
        "error",
        "warning",
        "note",
    ]
    assert lines[-1].startswith("1 error, 1 warning, 1 note in ")
    assert "--model adds it" in lines[-2]


def test_bad_flags_are_refused(tmp_path: Path, ftk_json: Ftk) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps(GOOD))
    assert ftk_json("data", "check", tmp_path / "none.jsonl")["exit_code"] == 2
    assert ftk_json("data", "check", file, "--fail-on", "often")["exit_code"] == 2
    assert ftk_json("data", "check", file, "--benchmark", tmp_path / "none.jsonl")["exit_code"] == 2
    assert ftk_json("data", "check", file, "--against", tmp_path / "none.jsonl")["exit_code"] == 2
    assert ftk_json("data", "check", file, "--model", tmp_path / "none")["exit_code"] == 2
