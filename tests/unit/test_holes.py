"""Held-out holes: which rows and texts they are taken from."""

import json
from pathlib import Path

import pytest
from infill_tokenizers import FAMILIES, of_bytes

from ftk.core.errors import DataError
from ftk.data.holes import Hole, read_holes
from ftk.data.settings import Source

TOKENIZER = of_bytes(FAMILIES["StarCoder"])


def holes_of(path: Path, **settings: object) -> list[Hole]:
    source = Source.model_validate({"source": str(path), **settings})
    return read_holes([source], TOKENIZER, context_tokens=200, seed=0)


def rows_file(path: Path, rows: list[dict[str, str]]) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


@pytest.mark.parametrize("limit", [None, 3, "100 tokens"])
def test_holes_are_taken_out_of_as_much_as_the_source_gives(tmp_path: Path, limit: int | str | None) -> None:
    texts = [f"one = {n}\ntwo = {n}\nthree = {n}\n" for n in range(10)]
    found = holes_of(rows_file(tmp_path / "texts.jsonl", [{"text": text} for text in texts]), limit=limit)
    taken = {None: 10, 3: 3, "100 tokens": 5}[limit]
    assert len(TOKENIZER(texts[0])["input_ids"]) == 24
    assert [hole.prefix + hole.middle + hole.suffix for hole in found] == texts[:taken]
    assert all(hole.middle == f"two = {n}\n" for n, hole in enumerate(found))


def test_rows_with_holes_are_taken_up_to_their_limit(tmp_path: Path) -> None:
    path = rows_file(tmp_path / "holes.jsonl", [{"prefix": "a", "suffix": "c", "middle": f"{n}"} for n in range(5)])
    assert [hole.middle for hole in holes_of(path)] == ["0", "1", "2", "3", "4"]
    assert [hole.middle for hole in holes_of(path, limit=2)] == ["0", "1"]
    with pytest.raises(DataError, match=r"holes.jsonl: a limit of rows with holes counts rows, such as limit: 500"):
        holes_of(path, limit="2k tokens")
