"""Texts as pieces: what is learned of them, in memory and in mapped files alike."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

import ftk
from ftk.core.types import NUM_BYTES, Examples
from ftk.data.batches import TrainBatches
from ftk.data.prepare_texts import first_pieces, prepare_texts
from ftk.data.settings import Source
from ftk.data.text_report import TextReport
from ftk.data.texts import read_texts

TINY = Path(ftk.__file__).parent / "models" / "tiny"
TEXTS = ["One day a fox met a crow.\n" * 20, "Short.", "The end is <|end|> here."]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(TINY)


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    return path


def prepared(
    tokenizer: PreTrainedTokenizerBase, *sources: dict[str, Any], cache: Path | None = None, overlap: int = 0
) -> tuple[Examples, TextReport]:
    texts = read_texts([Source.model_validate(source) for source in sources])
    return prepare_texts(texts, tokenizer, max_length=32, overlap=overlap, cache_folder=cache)


def test_every_token_and_every_byte_once(tokenizer: PreTrainedTokenizerBase, rows: Path) -> None:
    examples, report = prepared(tokenizer, {"source": str(rows)}, overlap=8)
    assert examples.columns[NUM_BYTES].sum() == sum(len(text.encode()) for text in TEXTS) == report.taken[0].num_bytes
    learned = examples.token_ids[examples.weights == 1].tolist()
    plain = [tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"] for text in TEXTS]
    assert learned == [token for ids in plain for token in [*ids, tokenizer.eos_token_id]]
    assert np.array_equal(examples.answers, examples.weights == 1)
    assert (report.num_cut, report.taken[0].num_documents, report.has_end) == (1, 3, True)
    # A text that spells out the end of a text does not mean it.
    assert learned.count(tokenizer.eos_token_id) == 3


def test_mapped_files_hold_what_memory_would(tokenizer: PreTrainedTokenizerBase, rows: Path, tmp_path: Path) -> None:
    source = {"source": str(rows), "weight": 2.0}
    held, _ = prepared(tokenizer, source)
    written, first = prepared(tokenizer, source, cache=tmp_path / "cache")
    mapped, second = prepared(tokenizer, source, cache=tmp_path / "cache")
    assert isinstance(mapped.token_ids.base, np.memmap)
    for name in ("token_ids", "weights", "answers", "offsets", "rows_N", "sources_N"):
        assert np.array_equal(getattr(held, name), getattr(mapped, name)), name
        assert np.array_equal(getattr(held, name), getattr(written, name)), name
    assert np.array_equal(held.columns[NUM_BYTES], mapped.columns[NUM_BYTES])
    assert (first.cached, second.cached, second.source_weights) == (False, True, (2.0,))
    assert [mapped.place(0), mapped.place(len(mapped) - 1)] == [f"{rows}:1", f"{rows}:3"]


def test_a_cache_that_cannot_be_written_is_no_reason_to_stop(
    tokenizer: PreTrainedTokenizerBase, rows: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    examples, _ = prepared(tokenizer, {"source": str(rows)}, cache=tmp_path / "file")
    assert len(examples) > 3


def test_first_pieces_are_the_first(tokenizer: PreTrainedTokenizerBase, rows: Path) -> None:
    texts = read_texts([Source(source=str(rows))])
    whole, _ = prepared(tokenizer, {"source": str(rows)})
    some = first_pieces(texts, tokenizer, 2, max_length=32, overlap=0)
    assert len(some) == 2
    assert [one.token_ids_L.tolist() for one in some] == [whole[n].token_ids_L.tolist() for n in range(2)]


@pytest.mark.parametrize(("limit", "documents"), [(2, 2), ("25 tokens", 1), (3, 3)])
def test_limits(tokenizer: PreTrainedTokenizerBase, rows: Path, limit: object, documents: int) -> None:
    examples, report = prepared(tokenizer, {"source": str(rows), "limit": limit})
    assert report.taken[0].num_documents == documents
    assert (report.taken[0].limit is not None) is (limit != 3)
    if limit == "25 tokens":
        assert examples.weights.sum() == 25
        assert tokenizer.eos_token_id not in examples.token_ids


def test_weights_are_of_sources_not_of_files(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    for folder, number in (("one", 9), ("other", 2)):
        (tmp_path / folder).mkdir()
        for n in range(number):
            (tmp_path / folder / f"{n}.txt").write_text(f"Text {n}.")
    examples, report = prepared(
        tokenizer,
        {"source": str(tmp_path / "one"), "weight": 1},
        {"source": str(tmp_path / "other"), "weight": 1},
    )
    assert (len(examples.source_names), report.source_origins) == (11, (0,) * 9 + (1,) * 2)
    batches = TrainBatches(
        examples,
        batch_size=11,
        max_length=32,
        pad_token_id=0,
        seed=0,
        source_weights=report.source_weights,
        source_origins=report.source_origins,
    )
    drawn = [index for batch in next(iter(batches)) for index in batch.indices]
    assert sorted(index >= 9 for index in drawn) == [False] * 6 + [True] * 5
