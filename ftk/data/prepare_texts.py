"""From plain texts to the pieces that are trained on, cached in files that are mapped and never held as a whole.

Shapes: L tokens of a piece, N pieces.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ftk.core.atomic import atomic_folder
from ftk.core.errors import DataError
from ftk.core.types import NUM_BYTES, Examples, TextBlock
from ftk.data.cache import cache_key
from ftk.data.checks import check_tells_places
from ftk.data.flat_arrays import FlatArrays, mapped
from ftk.data.infill import InfillCutter, Infilling
from ftk.data.infill_report import InfillReport
from ftk.data.pieces import Piece
from ftk.data.text_pieces import Progress, cutter_of, pieces_of
from ftk.data.text_report import TakenTexts, TextReport
from ftk.data.texts import TextReader, Texts, first_documents

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_DTYPES = {
    "token_ids": np.int32,
    "weights": np.float32,
    "answers": np.bool_,
    "lengths": np.int64,
    "rows": np.int64,
    "sources": np.int32,
    "num_bytes": np.float32,
}


def prepare_texts(
    texts: Texts,
    tokenizer: "PreTrainedTokenizerBase",
    *,
    max_length: int,
    overlap: int,
    infilling: Infilling | None = None,
    cache_folder: Path | None,
) -> tuple[Examples, TextReport]:
    """Tokenize every document and cut it into pieces, or find that in the cache.

    With a cache the pieces lie in its files, so that neither they nor the texts need fit into memory.

    Raises:
        DataError: a text does not read, or there is none.
    """
    check_tells_places(tokenizer)
    if cache_folder is None:
        return _in_memory(texts, tokenizer, max_length=max_length, overlap=overlap, infilling=infilling)
    key = cache_key(
        tokenizer=tokenizer,
        template="",
        texts=texts.fingerprint,
        max_length=max_length,
        overlap=overlap,
        infilling=repr(infilling),
    )
    folder = cache_folder / f"texts-{key}"
    saved = _load(folder, texts, cached=True)
    if saved is not None:
        return saved
    try:
        cache_folder.mkdir(parents=True, exist_ok=True)
        with atomic_folder(folder) as unfinished:
            facts = _write(texts, tokenizer, unfinished, max_length=max_length, overlap=overlap, infilling=infilling)
            (unfinished / "facts.json").write_text(json.dumps(facts, ensure_ascii=False), encoding="utf-8")
    except OSError:
        # A cache folder that cannot be written is no reason to stop.
        return _in_memory(texts, tokenizer, max_length=max_length, overlap=overlap, infilling=infilling)
    return _load(folder, texts, cached=False) or _in_memory(
        texts, tokenizer, max_length=max_length, overlap=overlap, infilling=infilling
    )


def first_pieces(
    texts: Texts,
    tokenizer: "PreTrainedTokenizerBase",
    num_pieces: int,
    *,
    max_length: int,
    overlap: int,
    infilling: Infilling | None = None,
) -> Examples:
    """The first pieces, without reading on."""
    check_tells_places(tokenizer)
    with FlatArrays(_DTYPES, None) as arrays:
        names: dict[tuple[int, str], int] = {}
        left_out: Counter[str] = Counter()
        left = num_pieces
        for number, reader in enumerate(texts.readers):
            cutter = cutter_of(tokenizer, max_length=max_length, overlap=overlap, infilling=infilling)
            # So many documents are enough.
            blocks = first_documents(reader.blocks(left_out), left)
            for block, piece in islice(pieces_of(blocks, tokenizer, cutter, Progress(reader.source.limit)), left):
                _append(arrays, block, piece, names, source=number)
                left -= 1
            if not left:
                break
        return _examples(arrays.in_memory(), [name for _, name in names])


def _write(
    texts: Texts,
    tokenizer: "PreTrainedTokenizerBase",
    folder: Path | None,
    *,
    max_length: int,
    overlap: int,
    infilling: Infilling | None,
) -> dict[str, Any]:
    with FlatArrays(_DTYPES, folder) as arrays:
        return _fill(arrays, texts, tokenizer, max_length=max_length, overlap=overlap, infilling=infilling)


def _in_memory(
    texts: Texts,
    tokenizer: "PreTrainedTokenizerBase",
    *,
    max_length: int,
    overlap: int,
    infilling: Infilling | None,
) -> tuple[Examples, TextReport]:
    with FlatArrays(_DTYPES, None) as arrays:
        facts = _fill(arrays, texts, tokenizer, max_length=max_length, overlap=overlap, infilling=infilling)
        return _examples(arrays.in_memory(), facts["source_names"]), _report(facts, texts, cached=False)


def _load(folder: Path, texts: Texts, *, cached: bool) -> tuple[Examples, TextReport] | None:
    try:
        facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
        arrays = mapped(_DTYPES, folder)
        if len(arrays["token_ids"]) != facts["num_tokens"] or len(arrays["weights"]) != facts["num_tokens"]:
            return None
        return _examples(arrays, facts["source_names"]), _report(facts, texts, cached=cached)
    except (OSError, ValueError, KeyError, TypeError):
        return None  # not there, or damaged: tokenized again


def _fill(
    arrays: FlatArrays,
    texts: Texts,
    tokenizer: "PreTrainedTokenizerBase",
    *,
    max_length: int,
    overlap: int,
    infilling: Infilling | None,
) -> dict[str, Any]:
    """Append all pieces; the facts beside them, as JSON has them."""
    names: dict[tuple[int, str], int] = {}
    taken: list[TakenTexts] = []
    num_tokens = num_cut = 0
    cutter = cutter_of(tokenizer, max_length=max_length, overlap=overlap, infilling=infilling)
    for number, reader in enumerate(texts.readers):
        left_out: Counter[str] = Counter()
        progress = Progress(reader.source.limit)
        counts = np.zeros(3, np.int64)  # pieces, learned tokens, bytes
        document, of_document = None, 0
        for block, piece in pieces_of(reader.blocks(left_out), tokenizer, cutter, progress):
            num_learned = _append(arrays, block, piece, names, source=number)
            num_tokens += len(piece.token_ids_L)
            counts += [1, num_learned, piece.num_bytes]
            of_document = of_document + 1 if document == (block.source, block.row) else 1
            document = (block.source, block.row)
            num_cut += of_document == 2
        if not counts[0]:
            raise DataError("there is no text to learn from", place=reader.source.source)
        taken.append(_taken(reader, progress, counts.tolist(), left_out))
    return {
        "taken": [asdict(one) for one in taken],
        "num_cut": num_cut,
        "num_tokens": num_tokens,
        "infill": asdict(InfillReport.of(cutter, place=texts.role)) if isinstance(cutter, InfillCutter) else None,
        "max_length": max_length,
        "overlap": overlap,
        "has_end": tokenizer.eos_token_id is not None,
        "source_origins": [number for number, _ in names],
        "source_names": [name for _, name in names],
    }


def _taken(reader: TextReader, progress: Progress, counts: list[int], left_out: Counter[str]) -> TakenTexts:
    num_pieces, num_tokens, num_bytes = counts
    return TakenTexts(
        reader.source.source,
        progress.num_documents,
        num_pieces,
        num_tokens,
        num_bytes,
        left_out=dict(left_out),
        limit=str(reader.source.limit) if progress.is_over else None,
    )


def _append(
    arrays: FlatArrays, block: TextBlock, piece: Piece, names: dict[tuple[int, str], int], *, source: int
) -> int:
    """Tokens of the piece that are learned."""
    is_learned_L = piece.is_learned_L
    arrays.append(
        token_ids=piece.token_ids_L,
        weights=piece.weights_L,
        answers=is_learned_L,
        lengths=len(piece.token_ids_L),
        rows=block.row,
        sources=names.setdefault((source, block.source), len(names)),
        num_bytes=piece.num_bytes,
    )
    return int(is_learned_L.sum())


def _examples(arrays: Mapping[str, NDArray[Any]], source_names: Sequence[str]) -> Examples:
    return Examples(
        token_ids=arrays["token_ids"],
        weights=arrays["weights"],
        answers=arrays["answers"],
        offsets=np.cumsum(np.concatenate([[0], arrays["lengths"]]), dtype=np.int64),
        rows_N=arrays["rows"],
        sources_N=arrays["sources"],
        source_names=tuple(source_names),
        columns={NUM_BYTES: arrays["num_bytes"]},
    )


def _report(facts: Mapping[str, Any], texts: Texts, *, cached: bool) -> TextReport:
    report = TextReport(
        taken=tuple(TakenTexts(**one) for one in facts["taken"]),
        source_origins=tuple(facts["source_origins"]),
        infill=InfillReport.from_facts(facts["infill"]),
        **{name: facts[name] for name in ("num_cut", "max_length", "overlap", "has_end")},
    )
    return replace(report, source_weights=texts.weights, cached=cached)
