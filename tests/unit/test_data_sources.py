"""Where rows come from: files, folders, slices, the hub; and each kind of bad input."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ftk.core.errors import DataError
from ftk.data.load import Conversations, read_conversations
from ftk.data.settings import DataSettings, Source
from ftk.data.split import parse_split

ROWS = [{"question": f"q{number}", "answer": f"a{number}"} for number in range(10)]


def write_jsonl(file: Path, rows: Sequence[object] = ROWS) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def write_json(file: Path) -> Path:
    file.write_text(json.dumps(ROWS, indent=1))
    return file


def write_csv(file: Path) -> Path:
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, ["question", "answer"])
        writer.writeheader()
        writer.writerows(ROWS)
    return file


def write_parquet(file: Path) -> Path:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), file)
    return file


def read(path: object, **source: Any) -> Conversations:
    return read_conversations([Source(source=str(path), **source)])


def questions(rows: Conversations) -> list[str]:
    return [row.messages[0]["content"] for row in rows]


ALL = [row["question"] for row in ROWS]


@pytest.mark.parametrize(
    ("name", "write", "first"),
    [("r.jsonl", write_jsonl, 1), ("r.json", write_json, 1), ("r.json", write_jsonl, 1), ("r.csv", write_csv, 2),
     ("r.parquet", write_parquet, 1)],
    ids=["jsonl", "json", "json-lines", "csv", "parquet"],
)  # fmt: skip
def test_each_kind_of_file(name: str, write: Any, first: int, tmp_path: Path) -> None:
    rows = read(write(tmp_path / name))
    assert questions(rows) == ALL
    # The number that an editor shows: the header of a CSV file is line 1.
    assert [row.row for row in rows][:2] == [first, first + 1]
    assert rows[0].source == str(tmp_path / name)


def test_a_folder_is_read_by_name(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "b.jsonl", ROWS[5:])
    write_csv(tmp_path / "a.csv")
    (tmp_path / "README.md").write_text("what this is")
    rows = read(tmp_path)
    assert questions(rows) == ALL + ALL[5:]
    assert rows[-1].source == str(tmp_path / "b.jsonl")


def test_rows_that_ship_with_ftk() -> None:
    train, held_out = read("ftk://orders/train"), read("ftk://orders/eval")
    assert (len(train), len(held_out)) == (2000, 200)
    assert train[0].source == "ftk://orders/train"


def test_a_relative_path_is_of_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    write_jsonl(tmp_path / "rows.jsonl")
    monkeypatch.chdir(tmp_path / "here")
    rows = read("../rows.jsonl")
    assert (len(rows), rows[0].source) == (10, "../rows.jsonl")


def test_quoted_line_breaks_in_csv_keep_line_numbers_right(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text('question,answer\n"two\nlines",a\nq,b\n')
    assert [(row.row, row.messages[0]["content"]) for row in read(tmp_path / "r.csv")] == [(2, "two\nlines"), (4, "q")]


def test_a_byte_order_mark_and_blank_lines_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_bytes(
        b"\xef\xbb\xbf" + json.dumps(ROWS[0]).encode() + b"\r\n\r\n" + json.dumps(ROWS[1]).encode()
    )
    assert [row.row for row in read(tmp_path / "r.jsonl")] == [1, 3]


def test_a_line_separator_within_text_is_no_end_of_line(tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text('{"question": "a\u2028b", "answer": "c\x85"}\n', encoding="utf-8")
    assert questions(read(tmp_path / "r.jsonl")) == ["a\u2028b"]


@pytest.mark.parametrize(
    ("split", "expected"),
    [("train", ALL), ("train[:95%]", ALL), ("train[:94%]", ALL[:9]), ("train[94%:]", ALL[9:]), ("train[2:4]", ALL[2:4]),
     ("train[-3:]", ALL[-3:]), ("train[:-8]", ALL[:2]), ("train[7:100]", ALL[7:]), ("train[:]", ALL)],
)  # fmt: skip
def test_slices_of_files(split: str, expected: list[str], tmp_path: Path) -> None:
    assert questions(read(write_jsonl(tmp_path / "r.jsonl"), split=split)) == expected


def test_slices_are_those_of_the_datasets_library(tmp_path: Path) -> None:
    from datasets import load_dataset
    from datasets.utils.logging import disable_progress_bar

    disable_progress_bar()
    file = str(write_jsonl(tmp_path / "r.jsonl", ROWS * 7))
    for split in ("train[:33%]", "train[33%:67%]", "train[-7:]", "train[10%:-10%]"):
        theirs = load_dataset("json", data_files=file, split=split, cache_dir=str(tmp_path / "cache"))
        assert questions(read(file, split=split)) == theirs["question"][:]


def test_a_slice_keeps_line_numbers(tmp_path: Path) -> None:
    assert read(write_jsonl(tmp_path / "r.jsonl"), split="train[4:6]")[0].row == 5


def test_split_that_does_not_read() -> None:
    assert parse_split("validation[10%:]", place="x").bounds(50) == (5, 50)
    for split in ("train[", "train[a:b]", "train[1]", ""):
        with pytest.raises(DataError, match="does not read"):
            parse_split(split, place="x")
    with pytest.raises(ValueError, match="does not read"):
        Source(source="x", split="train[a:]")


def test_unknown_format_gives_the_nearest_name() -> None:
    with pytest.raises(ValueError, match="Did you mean sharegpt"):
        Source(source="x", format="sharegtp")


def bad(content: bytes) -> Any:
    def write(file: Path) -> Path:
        file.write_bytes(content)
        return file

    return write


GOOD = json.dumps(ROWS[0]).encode() + b"\n"
BAD_FILES = [
    ("r.jsonl", GOOD + b'{"question": "q", \n', r"r.jsonl:2: the line is not JSON"),
    ("r.jsonl", GOOD * 2 + b'{"question": "\xff", "answer": "a"}\n', r"r.jsonl:3: the line is not UTF-8 \(byte 0xff\)"),
    ("r.jsonl", GOOD + b"[1, 2]\n", r"r.jsonl:2: the row is list, expected an object"),
    ("r.jsonl", b"", r"r.jsonl: the file is empty"),
    ("r.jsonl", b" \n\n", r"r.jsonl: the file is empty"),
    ("r.jsonl", b'{"text": "x"}\n', r"r.jsonl:1: the columns text are of no known format \(messages: messages;"),
    ("r.jsonl", GOOD + b'{"question": "q"}\n', r"r.jsonl:2: the row has no column answer, which format"),
    ("r.jsonl", GOOD + b'{"question": "q", "answer": ""}\n', r"r.jsonl:2: the answer is empty"),
    ("r.json", b'[{"question": \n "q"', r"r.json:2: the file is not JSON"),
    ("r.json", b"[]", r"expected a list of objects"),
    ("r.csv", b"question,answer\nq,a\nq\n", r"r.csv:3: the row has 1 values and the header 2 columns"),
    ("r.csv", b'question,answer\nq,a\nq,"a\n', r"r.csv:3: the row is not CSV"),
    ("r.csv", b"question,answer\n", r"r.csv: there are no rows"),
    ("r.csv", b"question,answer\nq,a\nq,\xff\n", r"r.csv:3: the line is not UTF-8"),
    ("r.parquet", b"nothing", r"r.parquet: the file is not Parquet"),
    ("r.xlsx", b"nothing", r"r.xlsx: a .xlsx file cannot be read, expected .jsonl"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "message"), BAD_FILES)
def test_bad_files_are_one_error_with_place(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        list(read(tmp_path / name))
    assert caught.value.exit_code == 2
    assert caught.value.place is not None


def test_a_missing_file_gives_the_nearest_names(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "train.jsonl")
    with pytest.raises(DataError, match=r"Did you mean train.jsonl\?"):
        read(tmp_path / "trian.jsonl")
    with pytest.raises(DataError, match=r"the folder .* does not exist"):
        read(tmp_path / "nowhere" / "train.jsonl")


def test_a_folder_without_data_says_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DataError, match=r"no .jsonl, .json, .csv, .parquet file; found notes.txt"):
        read(tmp_path)


def test_a_column_that_is_mapped_and_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"r.jsonl:1: .* no column problem; the row has question, answer"):
        list(read(write_jsonl(tmp_path / "r.jsonl"), columns={"question": "problem"}))


def test_what_is_for_the_hub_alone_is_refused_for_files(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "r.jsonl")
    for more in ({"subset": "main"}, {"revision": "v1"}, {"split": "test"}):
        with pytest.raises(DataError, match=r"for data sets on the hub|no split 'test'"):
            read(file, **more)
    with pytest.raises(DataError, match=r"expected ftk://orders/train, ftk://orders/eval, .*ftk://contacts/train"):
        read("ftk://orders/test")


class TestHub:
    """The hub's client is replaced by a fake that notes what it is asked for."""

    @pytest.fixture
    def asked(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Any]:
        import datasets

        asked: list[Any] = []

        def load_dataset(path: str, name: str | None = None, *, split: str, revision: str | None = None) -> Any:
            asked.append((path, name, split, revision))
            if path != "openai/gsm8k":
                raise datasets.exceptions.DatasetNotFoundError(f"Dataset '{path}' doesn't exist on the Hub.\nmore")
            return datasets.Dataset.from_list(ROWS)

        monkeypatch.setattr(datasets, "load_dataset", load_dataset)
        monkeypatch.chdir(tmp_path)
        return asked

    def test_a_name_that_is_no_file_is_asked_of_the_hub(self, asked: list[Any]) -> None:
        rows = read("openai/gsm8k", subset="main", split="train[:95%]", revision="abc")
        assert asked == []  # not before a row is looked at
        assert questions(rows) == ALL
        assert asked == [("openai/gsm8k", "main", "train[:95%]", "abc")]
        assert (rows[3].source, rows[3].row) == ("openai/gsm8k", 4)
        assert rows.fingerprint == rows.fingerprint

    def test_what_the_hub_does_not_have_is_one_error(self, asked: list[Any]) -> None:
        with pytest.raises(DataError, match=r"^nobody/nothing: neither a file .* doesn't exist on the Hub\. Check"):
            list(read("nobody/nothing"))
        assert asked[0] == ("nobody/nothing", None, "train", None)

    def test_a_file_goes_before_the_hub(self, asked: list[Any], tmp_path: Path) -> None:
        (tmp_path / "openai").mkdir()
        write_jsonl(tmp_path / "openai" / "gsm8k.jsonl")
        assert len(read("openai")) == 10
        assert asked == []


def test_rows_are_not_read_before_they_are_looked_at(tmp_path: Path) -> None:
    file = tmp_path / "r.jsonl"
    file.write_text(json.dumps(ROWS[0]) + "\nbroken\n")
    rows = read(file)
    assert len(rows.fingerprint) == 64
    assert [row.row for row in rows.head(1)] == [1]
    with pytest.raises(DataError, match=r"r\.jsonl:2"):
        len(rows)


def test_fingerprint_changes_with_all_that_rows_depend_on(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "r.jsonl")
    same, seen = read(file).fingerprint, set()
    assert read(file).fingerprint == same
    assert read(file, weight=2).fingerprint == same  # weights choose among rows, they do not change them
    for how in ({"system": "s"}, {"format": "question_answer"}, {"split": "train[:5]"}):
        seen.add(read(file, **how).fingerprint)
    write_jsonl(file, ROWS[:9])
    seen.add(read(file).fingerprint)
    assert len(seen) == 4
    assert same not in seen


def test_sources_keep_their_order_and_weights(tmp_path: Path) -> None:
    first, second = write_jsonl(tmp_path / "a.jsonl", ROWS[:2]), write_jsonl(tmp_path / "b.jsonl", ROWS[2:5])
    settings = DataSettings(train=[{"source": str(first), "weight": 3}, {"source": str(second), "weight": 1}])
    rows = read_conversations(settings.train)
    assert questions(rows) == ALL[:5]
    assert rows.source_numbers == [0, 0, 1, 1, 1]
    assert rows.weights == (3, 1)
