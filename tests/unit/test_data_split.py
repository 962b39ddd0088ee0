"""`ftk data split`: what lies in which file."""

import json
from pathlib import Path
from typing import Any

import pytest
from run_ftk import Ftk

ROWS = [
    {"question": f"How much is {n} and {n}?", "answer": str(2 * n), "kind": "ab"[n % 4 == 0], "topic": n // 5, "id": n}
    for n in range(100)
]


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def lines(path: str | Path) -> list[Any]:
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def input(tmp_path: Path) -> Path:
    return write(tmp_path / "rows.jsonl", ROWS)


def test_each_row_lies_in_one_file_as_it_was(input: Path, tmp_path: Path, ftk_json: Ftk) -> None:
    answer = ftk_json("data", "split", input, "--out", tmp_path / "parts", "--eval", "0.1", "--test", "15")
    assert answer["exit_code"] == 0
    assert answer["num_rows"] == {"train": 75, "eval": 10, "test": 15}
    assert answer["files"]["eval"] == str(tmp_path / "parts" / "eval.jsonl")
    parts = {name: lines(file) for name, file in answer["files"].items()}
    for name, rows in parts.items():
        assert len(rows) == answer["num_rows"][name]
        assert [row["id"] for row in rows] == sorted(row["id"] for row in rows)
    assert sorted((row for rows in parts.values() for row in rows), key=lambda row: row["id"]) == ROWS
    again = ftk_json("data", "split", input, "--out", tmp_path / "again", "--eval", "0.1", "--test", "15")
    assert lines(again["files"]["eval"]) == parts["eval"]
    other = ftk_json("data", "split", input, "--out", tmp_path / "other", "--eval", "0.1", "--seed", "1")
    assert lines(other["files"]["eval"]) != parts["eval"]


def test_strata_and_groups_by_a_column(input: Path, tmp_path: Path, ftk_json: Ftk) -> None:
    answer = ftk_json("data", "split", input, "--out", tmp_path / "s", "--eval", "0.2", "--stratify", "kind")
    assert answer["strata"] == {"b": {"train": 20, "eval": 5}, "a": {"train": 60, "eval": 15}}
    answer = ftk_json("data", "split", input, "--out", tmp_path / "g", "--eval", "0.2", "--group", "topic")
    topics = [{row["topic"] for row in lines(answer["files"][name])} for name in ("train", "eval")]
    assert not topics[0] & topics[1]
    assert (answer["num_rows"], answer["num_groups"]) == ({"train": 80, "eval": 20}, 20)
    # 12 rows cannot be had from groups of 5: 10 are nearer than 15.
    answer = ftk_json("data", "split", input, "--out", tmp_path / "h", "--eval", "12", "--group", "topic")
    assert (answer["num_rows"]["eval"], answer["asked"]["eval"]) == (10, 12)


def test_rows_without_a_group_belong_to_no_other(tmp_path: Path, ftk_json: Ftk) -> None:
    input = write(tmp_path / "r.jsonl", [{"text": f"t{n}", "group": None} for n in range(10)])
    answer = ftk_json("data", "split", input, "--out", tmp_path / "o", "--eval", "3", "--group", "group")
    assert (answer["num_rows"]["eval"], answer["num_groups"]) == (3, 10)


def test_near_duplicates_stay_together(tmp_path: Path, ftk_json: Ftk) -> None:
    rows = []
    for n in range(20):
        words = " ".join(f"word{n}x{place}" for place in range(60))
        rows += [{"question": words, "answer": "a", "n": n}, {"question": f"{words} please", "answer": "a", "n": n}]
    input = write(tmp_path / "r.jsonl", rows)
    answer = ftk_json("data", "split", input, "--out", tmp_path / "o", "--eval", "0.3", "--group", "near-duplicates")
    assert answer["num_groups"] == 20
    assert answer["num_rows"] == {"train": 28, "eval": 12}
    train, held_out = ({row["n"] for row in lines(answer["files"][name])} for name in ("train", "eval"))
    assert not train & held_out


def test_equal_rows_that_were_torn_are_said(tmp_path: Path, ftk_json: Ftk) -> None:
    input = write(tmp_path / "r.jsonl", [{"question": f"q{n // 10}", "answer": "a", "id": n} for n in range(20)])
    assert ftk_json("data", "split", input, "--out", tmp_path / "o", "--eval", "5")["num_torn"] == 5
    answer = ftk_json("data", "split", input, "--out", tmp_path / "p", "--eval", "10", "--group", "question")
    assert (answer["num_torn"], answer["num_rows"]) == (0, {"train": 10, "eval": 10})


@pytest.mark.parametrize("suffix", [".json", ".csv", ".parquet"])
def test_the_parts_are_of_the_kind_of_the_input(suffix: str, input: Path, tmp_path: Path, ftk_json: Ftk) -> None:
    other = tmp_path / f"rows{suffix}"
    assert ftk_json("data", "fix", input, "--out", other)["exit_code"] == 0
    answer = ftk_json("data", "split", other, "--out", tmp_path / "o", "--eval", "0.1")
    assert answer["files"]["train"].endswith(f"train{suffix}")
    back = ftk_json("data", "fix", answer["files"]["eval"], "--out", tmp_path / "back.jsonl")
    assert back["num_rows"] == 10


def test_what_is_wrong_is_said_and_nothing_written(input: Path, tmp_path: Path, ftk_json: Ftk) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("mine")

    def refused(*words: str, out: str = "o") -> tuple[str | None, str]:
        answer = ftk_json("data", "split", input, "--out", tmp_path / out, *words)
        assert answer["exit_code"] == 2
        return answer["error"]["place"], answer["error"]["message"]

    assert refused("--eval", "0.1", out="full")[1].startswith("exists already")
    assert refused("--eval", "0.1", out="rows.jsonl")[1].startswith("exists already")
    for wrong in ("0", "ten", "1.5", "nan", "inf"):
        assert refused("--eval", wrong) == (
            "--eval", f"'{wrong}' is neither a share such as 0.1 nor a number of rows such as 200",
        )  # fmt: skip
    assert "is less than one" in refused("--eval", "0.001")[1]
    assert "leave none to train on" in refused("--eval", "0.5", "--test", "50")[1]
    place, message = refused("--eval", "0.1", "--stratify", "kinds")
    assert (place, "no column kinds; it has question, answer, kind" in message) == (f"{input}:1", True)
    write(input, [{**row, "one": 1} for row in ROWS])
    assert "there would be no rows for eval: there are 1 groups" in refused("--eval", "0.1", "--group", "one")[1]
    assert {one.name for one in tmp_path.iterdir()} == {"rows.jsonl", "full"}
    assert (tmp_path / "full" / "mine").read_text() == "mine"
