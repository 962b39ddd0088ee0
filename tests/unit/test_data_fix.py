"""`ftk data fix`: what is mended, what is left alone, and that every change is noted."""

import json
import random
import re
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from run_ftk import Ftk

from ftk.data.check.whitespace import unseen_in
from ftk.data.fix import MECHANICAL, TEXT_FIXES
from ftk.data.fix.empty import is_empty
from ftk.data.fix.text_fix import Text
from ftk.data.fix.texts import any_format_of, texts_of, with_texts
from ftk.data.source import SourceRow


def mend(value: str, *names: str, begins: bool = True, ends: bool = True) -> str:
    for name, fix in TEXT_FIXES.items():
        if name in names or (not names and not fix.when_asked):
            value = fix.fix(Text(value, begins, ends))
    return value


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("a\r\nb\rc\x0bd\x0ce\x85f\u2028g\u2029h", "a\nb\nc\nd\ne\nf\ng\nh"),
        ("a\x00b\x07c\x7fd\u200be\ufefff\xadg\u202eh", "abcdefgh"),
        ("half \ud83d of one", "half  of one"),
        ("e\u0301t\u00e9", "\u00e9t\u00e9"),
        (" \n\ttext\n ", "text"),
        # Left alone: indentation, line breaks of Markdown, tabs, joiners of emoji and Persian, typography.
        ("def f():\n    return  1", "def f():\n    return  1"),
        ("a  \nb\tc", "a  \nb\tc"),
        ("\U0001f469\u200d\U0001f4bb \u0645\u06cc\u200c\u062e", "\U0001f469\u200d\U0001f4bb \u0645\u06cc\u200c\u062e"),
        ("10\u00a0000 \u00bd \uff21 \ufb01 \u00c3\u00a9", "10\u00a0000 \u00bd \uff21 \ufb01 \u00c3\u00a9"),
    ],
)
def test_mechanical_fixes(before: str, after: str) -> None:
    assert mend(before) == after


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("lower_case", "ÉCOLE İ", "école i̇"),
        ("compatibility", "Ａ ﬁ 10\u00a0000 ①", "A fi 10 000 1"),
        ("collapse_spaces", "a  b \t c \n\n\n\n d", "a b c\n\nd"),
        ("mojibake", "cafÃ© â€œxâ€\x9d ðŸ˜€ Ã\xa0", "café “x” 😀 à"),
        ("mojibake", "café Â São Ãx É", "café Â São Ãx É"),
    ],
)
def test_what_may_change_meaning_is_done_by_name(name: str, before: str, after: str) -> None:
    assert TEXT_FIXES[name].when_asked
    assert name not in MECHANICAL
    assert mend(before, name) == after


def test_mojibake_is_undone_for_every_character() -> None:
    """What Windows-1252 leaves undefined is read as Latin-1, as browsers do."""
    for code in (*range(0xA0, 0x3000), *range(0x1F600, 0x1F650)):
        misread = "".join(
            bytes([byte]).decode("cp1252") if byte not in (0x81, 0x8D, 0x8F, 0x90, 0x9D) else chr(byte)
            for byte in chr(code).encode()
        )
        assert mend(misread, "mojibake") == chr(code)


@pytest.mark.parametrize("names", [(), tuple(TEXT_FIXES)])
def test_mending_twice_changes_nothing_more_and_the_check_is_content(names: tuple[str, ...]) -> None:
    rng = random.Random(0)
    letters = [*range(0x250), *range(0x2000, 0x2070), *range(0x300, 0x310), 0x1E9B, 0x212A, 0x3392, 0xFB01, 0xD800]
    for _ in range(3000):
        text = "".join(chr(rng.choice(letters)) for _ in range(12))
        once = mend(text, *(name for name in names if name != "mojibake"))
        assert mend(once, *(name for name in names if name != "mojibake")) == once
        assert unseen_in(once) is None
        assert unicodedata.is_normalized("NFC", once)


def test_blanks_between_a_prompt_and_its_completion_are_part_of_the_text() -> None:
    row = {"prompt": " def f():\n", "completion": "    return 1 \n"}
    fix = TEXT_FIXES["whitespace"].fix
    assert with_texts(row, any_format_of(row), lambda text, where: fix(text)) == {
        "prompt": "def f():\n", "completion": "    return 1",
    }  # fmt: skip
    row = {"prefix": "a ", "suffix": " b"}  # of no known format
    assert with_texts(row, any_format_of(row), lambda text, where: fix(text)) == row


SPOKEN = [
    ({"question": "Q", "answer": "A", "id": "N"}, ["Q", "A"]),
    ({"instruction": "Q", "input": "I", "output": "A", "system": "S"}, ["Q", "A", "I", "S"]),
    ({"prompt": "Q", "chosen": "A", "rejected": "B"}, ["A", "B", "Q"]),
    ({"prompt": "Q", "completion": "A", "label": "N"}, ["A", "Q"]),
    ({"text": "T", "id": "X", "number": 3}, ["T", "X"]),
    ({"messages": [{"role": "user", "content": "Q", "name": "N"}, {"role": "assistant", "content": [
        {"type": "text", "text": "A"}, {"type": "text", "text": "B"}]}], "tools": [{"name": "N"}]}, ["Q", "A", "B"]),
    ({"messages": [{"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "N"}}]},
        {"role": "tool", "content": "R", "tool_call_id": "N"}]}, ["R"]),
    ({"conversations": [{"from": "human", "value": "Q"}, {"from": "function_call", "value": "N"}]}, ["Q"]),
    ({"conversations": '[{"from": "human", "value": "Q"}]'}, ["Q"]),
    ({"contents": [{"role": "user", "parts": [{"text": "Q"}]}, {"role": "model", "parts": [{"functionCall": {
        "name": "N"}}, {"text": "A"}]}], "systemInstruction": {"role": "N", "parts": [{"text": "S"}]}},
        ["Q", "A", "S"]),
    ({"prompt": "Q", "completions": [{"response": "A", "rating": 3}, {"response": "B", "rating": 4}]}, ["A", "B", "Q"]),
]  # fmt: skip


@pytest.mark.parametrize(("row", "texts"), SPOKEN)
def test_the_texts_of_a_row_are_what_someone_says(row: dict[str, Any], texts: list[str]) -> None:
    format = any_format_of(row)
    assert texts_of(row, format) == texts
    lower = with_texts(row, format, lambda text, where: text.value.lower())
    assert texts_of(lower, format) == [text.lower() for text in texts]
    # All else stays: with the texts put back it is the row.
    back = with_texts(lower, format, lambda text, where: text.value.upper())
    assert back == row


EMPTY = [
    ({"question": " ", "answer": "a"}, True),
    ({"question": "q", "answer": None}, True),
    ({"question": "q", "answer": "a"}, False),
    ({"messages": []}, True),
    ({"messages": [{"role": "user", "content": "q"}]}, True),
    ({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": None}]}, True),
    ({"messages": [{"role": "user", "content": ""}, {"role": "assistant", "content": "a"}]}, True),
    ({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}, False),
    ({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "", "weight": 0},
        {"role": "user", "content": "r"}, {"role": "assistant", "content": "a"}]}, False),
    ({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": None, "tool_calls": [
        {"function": {"name": "f", "arguments": "{}"}}]}]}, False),
    ({"contents": [{"role": "user", "parts": [{"text": "q"}]}, {"role": "model", "parts": [{"text": "\n"}]}]}, True),
    ({"prompt": "q", "chosen": "a", "rejected": ""}, True),
    ({"text": "\n", "id": ""}, True),
    ({"text": "t"}, False),
]  # fmt: skip


@pytest.mark.parametrize(("row", "expected"), EMPTY)
def test_empty_and_one_sided_rows(row: dict[str, Any], expected: bool) -> None:
    assert is_empty(row, any_format_of(row)) == expected


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


def test_a_row_keeps_what_is_no_text() -> None:
    row = SourceRow(1, "r", {"question": "q", "answer": 3, "blob": b"x"})
    assert with_texts(row.columns, any_format_of(row.columns), lambda text, where: "T") == {
        "question": "T", "answer": 3, "blob": b"x",
    }  # fmt: skip
