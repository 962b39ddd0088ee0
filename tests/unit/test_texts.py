"""Plain text: which files are read, where documents begin, and what is left out."""

import json
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer

import ftk
from ftk.core.errors import DataError
from ftk.core.types import TextBlock
from ftk.data.settings import Source
from ftk.data.text_files import blocks_of, read_documents
from ftk.data.texts import read_texts
from ftk.data.tokens import token_bytes
from ftk.evaluation.retention import general_text

TINY = Path(ftk.__file__).parent / "models" / "tiny"


def read(**source: object) -> tuple[list[TextBlock], Counter[str]]:
    left_out: Counter[str] = Counter()
    (reader,) = read_texts([Source.model_validate(source)]).readers
    return list(reader.blocks(left_out)), left_out


def texts(**source: object) -> list[str]:
    return [block.text for block in read(**source)[0]]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    files: dict[str, bytes] = {
        "a.py": b"import os\n",
        "inner/b.py": "# caf\u00e9\n".encode(),
        "inner/empty.py": b" \n",
        "inner/image.py": b"\x89PNG\0\0",
        "inner/latin.py": "# caf\u00e9\n".encode("latin-1"),
        ".git/hidden.py": b"hidden\n",
        "notes.md": b"# Notes\n",
    }
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def test_a_tree_by_glob_leaves_out_and_counts_what_is_no_text(tree: Path) -> None:
    blocks, left_out = read(source=str(tree), glob="**/*.py")
    assert [(block.source, block.text) for block in blocks] == [
        (f"{tree}/a.py", "import os\n"),
        (f"{tree}/inner/b.py", "# caf\u00e9\n"),
    ]
    assert left_out == {"empty files": 1, "binary files": 1, "not UTF-8 files": 1}
    assert texts(source=str(tree), glob=["**/*.md", "*.py", "*.py"]) == ["import os\n", "# Notes\n"]
    assert texts(source=str(tree)) == ["# Notes\n"]


def test_a_single_file_that_is_no_text_is_an_error(tree: Path) -> None:
    for name, reason in {"image": "binary", "latin": "not UTF-8", "empty": "empty"}.items():
        with pytest.raises(DataError, match=f"the file is {reason}"):
            read(source=str(tree / "inner" / f"{name}.py"))
    with pytest.raises(DataError, match="none of its 2 files is text: 1 are binary, 1 are not UTF-8"):
        read(source=str(tree / "inner"), glob=["i*.py", "l*.py"])
    with pytest.raises(DataError, match=r"no file matches glob \*\.rs"):
        read(source=str(tree), glob="*.rs")
    with pytest.raises(DataError, match="does not read"):
        read(source=str(tree), glob="/etc/*")


def test_documents_between_separators_and_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "book.txt"
    path.write_bytes(b"\xef\xbb\xbfone\r\n===\ntwo\ntwo\n===\n\n===\n\nfour")
    blocks, _ = read(source=str(path), separator="===\n")
    assert [(block.row, block.text) for block in blocks] == [(1, "one\r\n"), (3, "two\ntwo\n"), (8, "\nfour")]
    assert texts(source=str(path)) == [path.read_bytes()[3:].decode()]
    assert texts(source=str(path), separator="===\n", split="train[1:]") == ["two\ntwo\n", "\nfour"]


def test_slices_of_one_file_are_of_its_lines_and_share_none(tmp_path: Path) -> None:
    path = tmp_path / "book.txt"
    lines = [f"line {number}\n" for number in range(21)]
    path.write_text("".join(lines))
    first, rest = (read(source=str(path), split=split)[0][0] for split in ("train[:90%]", "train[90%:]"))
    assert (first.text + rest.text, first.row, rest.row) == ("".join(lines), 1, 20)
    with pytest.raises(DataError, match="takes nothing"):
        read(source=str(path), split="train[30:]")


def test_rows_have_their_text_in_a_column(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"content": text}) + "\n" for text in ("one", "  ", None, "two")))
    blocks, left_out = read(source=str(path), columns={"text": "content"})
    assert [(block.row, block.text, block.begins, block.ends) for block in blocks] == [
        (1, "one", True, True),
        (4, "two", True, True),
    ]
    assert left_out == {"empty rows": 2}
    with pytest.raises(DataError, match="has no column text; it has content"):
        read(source=str(path))
    with pytest.raises(DataError, match="separator is for files of plain text"):
        read(source=str(path), separator="x")
    path.write_text('{"text": 3}\n')
    with pytest.raises(DataError, match="column text is int"):
        read(source=str(path))


def test_rows_of_parquet(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table({"text": ["one", "two"]}), tmp_path / "rows.parquet")
    assert texts(source=str(tmp_path / "rows.parquet")) == ["one", "two"]


def test_the_standard_library_is_there() -> None:
    blocks, left_out = read(source="ftk://stdlib", glob=["t*.py", "json/*.py", "test/*.py"])
    names = {block.source for block in blocks}
    assert {"ftk://stdlib/textwrap.py", "ftk://stdlib/json/decoder.py"} <= names
    assert not any("/test/" in name for name in names)
    assert set(left_out) <= {"empty files"}


@pytest.mark.parametrize("seed", range(20))
def test_blocks_are_the_document_whatever_the_size_and_the_seams(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    text = "".join(draw.choices(["a", "\n", " ", "word", "\n\n", "###", "\u00e9"], k=draw.randint(1, 300)))
    path = tmp_path / "file.txt"
    path.write_text(text, newline="")
    for separator in (None, "###"):
        blocks = list(read_documents(path, name="file", separator=separator, block_chars=draw.randint(4, 40)))
        assert documents_of(blocks) == documents_by_hand(text, separator)


def documents_of(blocks: list[TextBlock]) -> list[tuple[str, int]]:
    """Text and line of each document, put together again from its blocks."""
    found: list[tuple[str, int]] = []
    is_open = False
    for block in blocks:
        assert block.begins is not is_open
        if not block.begins:
            text, row = found.pop()
            assert row == block.row
        found.append((block.text if block.begins else text + block.text, block.row))
        is_open = not block.ends
    assert not is_open
    return [(text, row) for text, row in found if text.strip()]


def documents_by_hand(text: str, separator: str | None) -> list[tuple[str, int]]:
    wanted, row = [], 1
    for document in text.split(separator) if separator else [text]:
        if document.strip():
            wanted.append((document, row))
        row += document.count("\n")
    return wanted


@pytest.mark.parametrize("text", [general_text(), Path(random.__file__).read_text()], ids=["prose", "code"])
def test_blocks_have_the_tokens_of_the_whole(text: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(TINY)
    blocks = list(blocks_of([text], source="x", first_row=1, block_chars=700))
    assert len(blocks) > 5
    how = {"add_special_tokens": False, "verbose": False}
    joined = [token for block in blocks for token in tokenizer(block.text, **how)["input_ids"]]
    assert joined == tokenizer(text, **how)["input_ids"]


def test_bytes_of_tokens_add_up_to_the_text() -> None:
    tokenizer = AutoTokenizer.from_pretrained(TINY)
    for text in ("plain words\n\n  and more ", "\u00e9\u4e2d\U0001f600 x", "\n"):
        encoding = tokenizer([text], add_special_tokens=False).encodings[0]
        sizes = token_bytes(text, np.array([end for _, end in encoding.offsets]))
        assert sizes.sum() == len(text.encode())
        assert (sizes >= 0).all()
    assert token_bytes("ab\u00e9", np.array([1, 3])).tolist() == [1, 3]
