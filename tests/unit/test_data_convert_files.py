"""`ftk data convert`: from each kind of file to each other."""

import json
from pathlib import Path
from typing import Any

import pytest
from conversation_rows import CALLS, HOLD, ONE, SYSTEM, TOOL, TURNS, assistant, converted
from run_ftk import Ftk

from ftk.data.formats import FORMATS
from ftk.data.load import read_conversations
from ftk.data.settings import Source

SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")
KINDS = [
    (name, suffix)
    for name in FORMATS
    for suffix in SUFFIXES
    # Its lists and texts in one column are told apart by JSON alone.
    if (name, suffix) not in (("prompt_completion", ".csv"), ("prompt_completion", ".parquet"))
]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize(("name", "suffix"), KINDS)
def test_there_and_back_through_each_kind_of_file(name: str, suffix: str, tmp_path: Path, ftk_json: Ftk) -> None:
    rows = [row for one in HOLD[name] for row in converted(one, "messages", tools=[TOOL] if one is CALLS else [])[0]]
    input = write(tmp_path / "rows.jsonl", rows)
    there, back = tmp_path / f"there{suffix}", tmp_path / "back.jsonl"
    answer = ftk_json("data", "convert", input, "--to", name, "--out", there)
    assert (answer["exit_code"], answer["lost"]) == (0, {})
    assert answer["num_rows"] == answer["num_rows_written"] == len(rows)
    assert ftk_json("data", "convert", there, "--to", "messages", "--out", back)["source_format"] == name
    before, after = (read_conversations([Source(source=str(path))]) for path in (input, back))
    assert [(row.messages, row.tools) for row in before] == [(row.messages, row.tools) for row in after]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_lists_that_would_be_read_as_texts_are_refused(suffix: str, tmp_path: Path, ftk_json: Ftk) -> None:
    rows = [{"messages": ONE}, {"messages": SYSTEM}]
    out = tmp_path / f"out{suffix}"
    answer = ftk_json("data", "convert", write(tmp_path / "r.jsonl", rows), "--to", "prompt_completion", "--out", out)
    assert answer["exit_code"] == 2
    assert "column prompt has lists of messages" in answer["error"]["message"]
    assert [one.name for one in tmp_path.iterdir()] == ["r.jsonl"]


def test_columns_are_dropped_and_said_or_kept(tmp_path: Path, ftk_json: Ftk) -> None:
    input = write(tmp_path / "r.jsonl", [{"problem": "q", "solution": "a", "id": 1, "level": "hard"}] * 3)
    words = ("data", "convert", input, "--to", "alpaca", "--columns", "question=problem,answer=solution")
    answer = ftk_json(*words, "--out", tmp_path / "a.json")
    assert answer["lost"] == {"column id": 3, "column level": 3}
    assert json.loads((tmp_path / "a.json").read_text())[0] == {"instruction": "q", "input": "", "output": "a"}
    assert ftk_json(*words, "--out", tmp_path / "b.jsonl", "--keep-columns")["lost"] == {}
    row = json.loads((tmp_path / "b.jsonl").read_text().splitlines()[2])
    assert row == {"instruction": "q", "input": "", "output": "a", "id": 1, "level": "hard"}


def test_refused_rows_are_counted_before_it_stops(tmp_path: Path, ftk_json: Ftk) -> None:
    rows = [{"messages": one} for one in (ONE, TURNS, SYSTEM, TURNS)]
    answer = ftk_json(
        "data", "convert", write(tmp_path / "r.jsonl", rows), "--to", "question_answer", "--out", tmp_path / "o.jsonl"
    )
    assert (answer["exit_code"], answer["error"]["place"]) == (2, f"{tmp_path}/r.jsonl:2")
    assert "cannot hold 2 of 4 rows" in answer["error"]["message"]
    assert "2 with several turns" in answer["error"]["message"]
    assert "--turns split" in answer["error"]["message"]
    assert [one.name for one in tmp_path.iterdir()] == ["r.jsonl"]


def test_what_is_wrong_is_said_before_anything_is_written(tmp_path: Path, ftk_json: Ftk) -> None:
    input = write(tmp_path / "r.jsonl", [{"question": "q", "answer": "a"}])
    (tmp_path / "link.jsonl").symlink_to(input)
    (tmp_path / "there.jsonl").write_text("mine")

    def refused(*words: Any, to: str = "messages", out: str = "o.jsonl") -> str:
        answer = ftk_json("data", "convert", input, "--to", to, "--out", tmp_path / out, *words)
        assert answer["exit_code"] == 2
        return str(answer["error"]["message"])

    assert "there is no format alpacca to write" in refused(to="alpacca")
    assert "Did you mean alpaca?" in refused(to="alpacca")
    assert "there is no format pairs to write" in refused(to="pairs")
    assert "there is no format messages2" in refused("--format", "messages2")
    assert "a .txt file cannot be written" in refused(out="o.txt")
    assert "it is the input itself" in refused("--force", out="r.jsonl")
    assert "it is the input itself" in refused("--force", out="link.jsonl")
    assert "exists already. --force overwrites it" in refused(out="there.jsonl")
    assert (tmp_path / "there.jsonl").read_text() == "mine"
    assert "would be left out" in ftk_json(
        "data", "convert", write(tmp_path / "t.jsonl", [{"messages": TURNS}]), "--to", "question_answer",
        "--turns", "drop", "--out", tmp_path / "o.jsonl",
    )["error"]["message"]  # fmt: skip
    assert not (tmp_path / "o.jsonl").exists()
    answer = ftk_json("data", "convert", input, "--to", "messages", "--out", tmp_path / "there.jsonl", "--force")
    assert answer["exit_code"] == 0
    assert json.loads((tmp_path / "there.jsonl").read_text())["messages"][1] == assistant("a")


def test_half_a_character_is_said_with_its_row(tmp_path: Path, ftk_json: Ftk) -> None:
    input = tmp_path / "r.jsonl"
    input.write_text('{"question": "q", "answer": "a"}\n{"question": "q", "answer": "\\ud83d"}\n')
    for suffix in SUFFIXES:
        answer = ftk_json("data", "convert", input, "--to", "alpaca", "--out", tmp_path / f"o{suffix}")
        assert answer["exit_code"] == 2
        assert "lone surrogate" in answer["error"]["message"]
    assert [one.name for one in tmp_path.iterdir()] == ["r.jsonl"]


def test_a_folder_is_converted_to_a_file_elsewhere(tmp_path: Path, ftk_json: Ftk) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in "ab":
        write(folder / f"{name}.jsonl", [{"question": name, "answer": "a"}])
    answer = ftk_json("data", "convert", folder, "--to", "alpaca", "--out", folder / "c.jsonl")
    assert (answer["exit_code"], "be a part of it" in answer["error"]["message"]) == (2, True)
    assert ftk_json("data", "convert", folder, "--to", "alpaca", "--out", tmp_path / "new" / "c.csv")["num_rows"] == 2
