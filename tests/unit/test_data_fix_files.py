"""`ftk data fix` on files: every change is noted, and nothing else is changed."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from run_ftk import Ftk

from ftk.data.fix import MECHANICAL, TEXT_FIXES


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


DIRTY = [
    {"question": "q1\u200b ", "answer": "a1", "id": 1},
    {"question": "", "answer": "a2", "id": 2},
    {"question": "Q3\r\n?", "answer": "cafe\u0301", "id": 3},
    {"question": " q1", "answer": "a1", "id": 4},
    {"question": "q5", "answer": "a5", "id": 5},
]


def test_every_change_is_noted(tmp_path: Path, ftk_json: Ftk) -> None:
    input, out = write(tmp_path / "rows.jsonl", DIRTY), tmp_path / "clean.jsonl"
    before = input.read_bytes()
    answer = ftk_json("data", "fix", input, "--out", out)
    assert answer["exit_code"] == 0
    assert lines(out) == [
        {"question": "q1", "answer": "a1", "id": 1},
        {"question": "Q3\n?", "answer": "café", "id": 3},
        {"question": "q5", "answer": "a5", "id": 5},
    ]
    source, where = str(input), {"where": "question"}
    assert answer["log"] == f"{out}.log"
    assert lines(Path(answer["log"])) == [
        {"row": 1, "source": source, "kind": "control_characters", "before": "q1\u200b ", "after": "q1 ", **where},
        {"row": 1, "source": source, "kind": "whitespace", "before": "q1 ", "after": "q1", **where},
        {"row": 2, "source": source, "kind": "empty", "before": DIRTY[1], "after": None},
        {"row": 3, "source": source, "kind": "control_characters", "before": "Q3\r\n?", "after": "Q3\n?", **where},
        {"row": 3, "source": source, "kind": "unicode", "before": "cafe\u0301", "after": "café", "where": "answer"},
        {"row": 4, "source": source, "kind": "whitespace", "before": " q1", "after": "q1", **where},
        {"row": 4, "source": source, "kind": "duplicates", "before": {"question": "q1", "answer": "a1", "id": 4},
         "after": None, "same_as": f"{source}:1"},
    ]  # fmt: skip
    assert answer["changes"] == {"control_characters": 2, "unicode": 1, "whitespace": 2, "empty": 1, "duplicates": 1}
    assert (answer["num_rows"], answer["num_rows_written"]) == (5, 3)
    assert input.read_bytes() == before
    # What is clean stays as it is.
    again = ftk_json("data", "fix", out, "--out", tmp_path / "again.jsonl")
    assert set(again["changes"].values()) == {0}
    assert (tmp_path / "again.jsonl").read_bytes() == out.read_bytes()
    assert (tmp_path / "again.jsonl.log").read_bytes() == b""


def test_fixes_are_skipped_and_asked_for_by_name(tmp_path: Path, ftk_json: Ftk) -> None:
    input = write(tmp_path / "rows.jsonl", DIRTY)
    answer = ftk_json(
        "data", "fix", input, "--out", tmp_path / "o.jsonl", "--skip", "whitespace,empty,duplicates", "--lower-case"
    )
    assert [row["question"] for row in lines(tmp_path / "o.jsonl")] == ["q1 ", "", "q3\n?", " q1", "q5"]
    assert answer["changes"] == {"control_characters": 2, "unicode": 1, "lower_case": 1}
    answer = ftk_json("data", "fix", input, "--out", tmp_path / "p.jsonl", "--skip", "whitspace")
    assert answer["exit_code"] == 2
    assert "Did you mean whitespace?" in answer["error"]["message"]


def test_a_log_in_a_folder_of_data_is_not_taken_for_rows(tmp_path: Path, ftk_json: Ftk) -> None:
    input = write(tmp_path / "rows.jsonl", DIRTY)
    ftk_json("data", "fix", input, "--out", tmp_path / "clean" / "a.jsonl")
    answer = ftk_json("data", "fix", tmp_path / "clean", "--out", tmp_path / "b.jsonl")
    assert (answer["exit_code"], answer["num_rows"]) == (0, 3)


def test_near_duplicates_go_when_asked(tmp_path: Path, ftk_json: Ftk) -> None:
    words = " ".join(f"word{number}" for number in range(60))
    rows = [{"question": words, "answer": "a"}, {"question": "other words altogether", "answer": "b"},
            {"question": f"{words} more", "answer": "a"}]  # fmt: skip
    input = write(tmp_path / "rows.jsonl", rows)
    assert ftk_json("data", "fix", input, "--out", tmp_path / "a.jsonl")["num_rows_written"] == 3
    answer = ftk_json("data", "fix", input, "--out", tmp_path / "b.jsonl", "--near-duplicates")
    assert lines(tmp_path / "b.jsonl") == rows[:2]
    (noted,) = lines(Path(answer["log"]))
    assert (noted["row"], noted["kind"], noted["same_as"]) == (3, "near_duplicates", f"{input}:1")
    assert noted["before"] == rows[2]


@pytest.mark.parametrize(
    ("encoding", "words"),
    [("utf-16", ()), ("utf-32", ()), ("utf-8-sig", ()), ("cp1252", ("--encoding", "cp1252")),
     ("shift_jis", ("--encoding", "shift_jis"))],
)  # fmt: skip
def test_files_in_other_encodings(encoding: str, words: tuple[str, ...], tmp_path: Path, ftk_json: Ftk) -> None:
    said = "テスト" if encoding == "shift_jis" else "café"
    input = tmp_path / "rows.jsonl"
    input.write_bytes(f'{{"question": "{said}", "answer": "a\tb"}}\n'.encode(encoding))
    answer = ftk_json("data", "fix", input, "--out", tmp_path / "o.jsonl", *words)
    assert answer["exit_code"] == 0
    assert lines(tmp_path / "o.jsonl") == [{"question": said, "answer": "a\tb"}]
    assert answer["encodings"] == {str(input): encoding}
    assert lines(Path(answer["log"])) == [
        {"row": None, "source": str(input), "kind": "encoding", "before": encoding, "after": "utf-8"}
    ]


def test_an_encoding_is_never_guessed(tmp_path: Path, ftk_json: Ftk) -> None:
    input = tmp_path / "rows.jsonl"
    input.write_bytes(b'{"question": "q", "answer": "a"}\n{"question": "caf\xe9", "answer": "a"}\n')
    answer = ftk_json("data", "fix", input, "--out", tmp_path / "o.jsonl")
    assert (answer["exit_code"], answer["error"]["place"]) == (2, f"{input}:2")
    assert "byte 0xe9 is no utf-8. Say what the file is in, such as --encoding cp1252" in answer["error"]["message"]
    answer = ftk_json("data", "fix", input, "--out", tmp_path / "o.jsonl", "--encoding", "cp9999")
    assert (answer["exit_code"], answer["error"]["place"]) == (2, "--encoding")
    assert [one.name for one in tmp_path.iterdir()] == ["rows.jsonl"]


@pytest.mark.parametrize("suffix", [".json", ".csv", ".parquet"])
def test_other_kinds_of_files(suffix: str, tmp_path: Path, ftk_json: Ftk) -> None:
    messages = [{"role": "user", "content": " q "}, {"role": "assistant", "content": "a\r\n"}]
    rows = [{"messages": messages, "n": 1}, {"messages": messages[::-1], "n": 2}]
    middle, out = tmp_path / f"middle{suffix}", tmp_path / "out.jsonl"
    skipped = ("--skip", ",".join(MECHANICAL))
    assert ftk_json("data", "fix", write(tmp_path / "r.jsonl", rows), "--out", middle, *skipped)["exit_code"] == 0
    assert ftk_json("data", "fix", middle, "--out", out)["exit_code"] == 0
    found = lines(out)
    if suffix == ".csv":  # holds texts alone
        assert [row.pop("n") for row in found] == ["1", "2"]
        found = [{**row, "messages": json.loads(row["messages"])} for row in found]
    clean = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    assert [row["messages"] for row in found] == [clean, clean[::-1]]


def test_a_line_end_within_csv_comes_back(tmp_path: Path, ftk_json: Ftk) -> None:
    rows = [{"question": 'a\rb\n"c",', "answer": " a\n"}, {"question": "q\rr", "answer": ""}]
    middle, out = tmp_path / "m.csv", tmp_path / "o.jsonl"
    for source, target in ((write(tmp_path / "r.jsonl", rows), middle), (middle, out)):
        ftk_json("data", "fix", source, "--out", target, "--skip", ",".join(MECHANICAL))
    assert lines(out) == rows


def test_rows_that_do_not_read_are_kept_and_said(tmp_path: Path, ftk_json: Ftk) -> None:
    image = {"messages": [{"role": "user", "content": [{"type": "image"}]}, {"role": "assistant", "content": " a"}]}
    text = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}
    input = write(tmp_path / "r.jsonl", [text, image])
    answer = ftk_json("data", "fix", input, "--out", tmp_path / "o.jsonl")
    assert (answer["exit_code"], answer["unread"]) == (0, [f"{input}:2"])
    assert lines(tmp_path / "o.jsonl")[1]["messages"][1]["content"] == "a"


def test_what_is_refused_leaves_nothing_behind(tmp_path: Path, ftk_json: Ftk) -> None:
    input = write(tmp_path / "r.jsonl", DIRTY)
    before = input.read_bytes()
    (tmp_path / "hard.jsonl").hardlink_to(input)

    def refused(*words: Any) -> str:
        answer = ftk_json("data", "fix", *words)
        assert answer["exit_code"] == 2
        return str(answer["error"]["message"])

    assert "it is the input itself" in refused(input, "--out", input, "--force")
    assert "it is the input itself" in refused(input, "--out", tmp_path / "hard.jsonl", "--force")
    assert "it is the input itself" in refused(input, "--out", tmp_path / "o.jsonl", "--log", input, "--force")
    assert "cannot be one file" in refused(input, "--out", tmp_path / "o.jsonl", "--log", tmp_path / "o.jsonl")
    assert "it is a folder" in refused(input, "--out", write_folder(tmp_path / "f.jsonl"))
    assert "there is no such file" in refused(tmp_path / "none.jsonl", "--out", tmp_path / "o.jsonl")
    assert "cannot be written" in refused(input, "--out", input / "o.jsonl")
    empty = write(tmp_path / "e.jsonl", [{"question": "", "answer": ""}])
    assert "none of 1 rows is left" in refused(empty, "--out", tmp_path / "o.jsonl")
    broken = tmp_path / "b.jsonl"
    broken.write_bytes(before + b"{broken\n")
    assert "the line is not JSON" in refused(broken, "--out", tmp_path / "o.jsonl")
    assert input.read_bytes() == before
    assert {one.name for one in tmp_path.iterdir()} == {"r.jsonl", "hard.jsonl", "f.jsonl", "e.jsonl", "b.jsonl"}


def write_folder(path: Path) -> Path:
    path.mkdir()
    return path


def test_every_fix_is_told_in_the_help(capfd: pytest.CaptureFixture[str]) -> None:
    from ftk.cli.app import main

    with pytest.raises(SystemExit):
        main(["data", "fix", "--help"])
    told = re.sub(r"\s+", " ", capfd.readouterr().out)
    for name in MECHANICAL:
        assert name in told
    for name, fix in TEXT_FIXES.items():
        assert not fix.when_asked or f"--{name.replace('_', '-')}" in told
