"""From plain texts to the pieces that are trained on, cached in files that are mapped and never held as a whole.

Shapes: T tokens of a block, N pieces.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ftk.core.atomic import atomic_folder
from ftk.core.errors import DataError
from ftk.core.types import NUM_BYTES, Examples, TextBlock
from ftk.data.cache import cache_key
from ftk.data.checks import adds_bos, check_tells_places
from ftk.data.flat_arrays import FlatArrays, mapped
from ftk.data.limit import Limit
from ftk.data.pieces import Cutter, Piece
from ftk.data.text_files import counted, tally_line
from ftk.data.texts import TextReader, Texts, first_documents

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BLOCKS_AT_ONCE = 256
CHARS_AT_ONCE = 1 << 21
"""Text that is tokenized at a time: enough to keep the tokenizer's threads busy, few enough for its offsets to fit."""
_DTYPES = {
    "token_ids": np.int32,
    "weights": np.float32,
    "answers": np.bool_,
    "lengths": np.int64,
    "rows": np.int64,
    "sources": np.int32,
    "num_bytes": np.float32,
}


@dataclass(frozen=True)
class TakenTexts:
    """What came of one source."""

    source: str
    num_documents: int
    num_pieces: int
    num_tokens: int
    """Tokens that are learned."""
    num_bytes: int
    """Bytes of text that they stand for."""
    left_out: Mapping[str, int]
    """Files or rows that were passed over, by the reason."""
    limit: str | None
    """The limit, where it ended the source."""
    format: str = "text"

    def __str__(self) -> str:
        parts = [
            f"{self.source}: {counted(self.num_documents, 'document')} in {counted(self.num_pieces, 'piece')}, "
            f"{self.num_tokens:,} tokens, {self.num_bytes:,} bytes",
            tally_line(Counter(self.left_out)),
            f"ended by its limit of {self.limit}" if self.limit else "",
        ]
        return "; ".join(part for part in parts if part)


@dataclass(frozen=True)
class TextReport:
    """What became of the texts."""

    taken: tuple[TakenTexts, ...]
    num_cut: int
    """Documents that are longer than a piece."""
    max_length: int
    overlap: int
    """Tokens of context that further pieces have."""
    has_end: bool
    """Whether the tokenizer has a token for the end of a document."""
    source_origins: tuple[int, ...]
    """For each of the examples' `source_names`, to which source of the recipe it belongs."""
    source_weights: tuple[float, ...] | None = None
    """For `TrainBatches`: weight of each source of the recipe; None where none has one."""
    cached: bool = False

    def lines(self) -> list[str]:
        """What a person should know, a line each."""
        lines = [f"{taken}{' (from the cache)' if self.cached else ''}" for taken in self.taken]
        if self.num_cut:
            context = f"each with {self.overlap:,} tokens of context" if self.overlap else "without an overlap"
            lines.append(
                f"longer than max_length {self.max_length:,} tokens: {counted(self.num_cut, 'document')}, cut into "
                f"pieces, {context}; every token is learned once"
            )
        if not self.has_end:
            lines.append("the tokenizer has no end-of-text token: where documents end is not learned")
        return lines


def prepare_texts(
    texts: Texts, tokenizer: "PreTrainedTokenizerBase", *, max_length: int, overlap: int, cache_folder: Path | None
) -> tuple[Examples, TextReport]:
    """Tokenize every document and cut it into pieces, or find that in the cache.

    With a cache the pieces lie in its files, so that neither they nor the texts need fit into memory.

    Raises:
        DataError: a text does not read, or there is none.
    """
    check_tells_places(tokenizer)
    if cache_folder is None:
        return _in_memory(texts, tokenizer, max_length=max_length, overlap=overlap)
    key = cache_key(tokenizer=tokenizer, template="", texts=texts.fingerprint, max_length=max_length, overlap=overlap)
    folder = cache_folder / f"texts-{key}"
    saved = _load(folder, texts, cached=True)
    if saved is not None:
        return saved
    try:
        cache_folder.mkdir(parents=True, exist_ok=True)
        with atomic_folder(folder) as unfinished:
            facts = _write(texts, tokenizer, unfinished, max_length=max_length, overlap=overlap)
            (unfinished / "facts.json").write_text(json.dumps(facts, ensure_ascii=False), encoding="utf-8")
    except OSError:
        # A cache folder that cannot be written is no reason to stop.
        return _in_memory(texts, tokenizer, max_length=max_length, overlap=overlap)
    return _load(folder, texts, cached=False) or _in_memory(texts, tokenizer, max_length=max_length, overlap=overlap)


def first_pieces(
    texts: Texts, tokenizer: "PreTrainedTokenizerBase", num_pieces: int, *, max_length: int, overlap: int
) -> Examples:
    """The first pieces, without reading on."""
    check_tells_places(tokenizer)
    with FlatArrays(_DTYPES, None) as arrays:
        names: dict[tuple[int, str], int] = {}
        left_out: Counter[str] = Counter()
        left = num_pieces
        for number, reader in enumerate(texts.readers):
            cutter = _cutter(tokenizer, max_length=max_length, overlap=overlap)
            # So many documents are enough.
            blocks = first_documents(reader.blocks(left_out), left)
            for block, piece in islice(_pieces(blocks, tokenizer, cutter, Progress(reader.source.limit)), left):
                _append(arrays, block, piece, names, source=number)
                left -= 1
            if not left:
                break
        return _examples(arrays.in_memory(), [name for _, name in names])


class Progress:
    """How much of one source has been taken, and whether its limit is reached."""

    def __init__(self, limit: Limit | None) -> None:
        self._limit = limit
        self.num_documents = 0
        self.num_tokens = 0
        self.is_over = False

    def take(self, num_tokens: int, *, ends: bool) -> int:
        """How many of a block's tokens are taken."""
        left = num_tokens
        if self._limit is not None and self._limit.tokens is not None:
            left = min(num_tokens, self._limit.tokens - self.num_tokens)
            # A document that ends just there is whole.
            self.is_over = left < num_tokens or (self.num_tokens + left == self._limit.tokens and not ends)
        self.num_tokens += left
        return left

    def end(self) -> None:
        """A document is over."""
        self.num_documents += 1

    @property
    def is_full(self) -> bool:
        """Whether no further document is taken."""
        limit = self._limit
        if limit is None:
            return False
        return self.num_documents >= limit.rows if limit.rows is not None else self.num_tokens >= (limit.tokens or 0)


def _write(
    texts: Texts, tokenizer: "PreTrainedTokenizerBase", folder: Path | None, *, max_length: int, overlap: int
) -> dict[str, Any]:
    with FlatArrays(_DTYPES, folder) as arrays:
        return _fill(arrays, texts, tokenizer, max_length=max_length, overlap=overlap)


def _in_memory(
    texts: Texts, tokenizer: "PreTrainedTokenizerBase", *, max_length: int, overlap: int
) -> tuple[Examples, TextReport]:
    with FlatArrays(_DTYPES, None) as arrays:
        facts = _fill(arrays, texts, tokenizer, max_length=max_length, overlap=overlap)
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
    arrays: FlatArrays, texts: Texts, tokenizer: "PreTrainedTokenizerBase", *, max_length: int, overlap: int
) -> dict[str, Any]:
    """Append all pieces; the facts beside them, as JSON has them."""
    names: dict[tuple[int, str], int] = {}
    taken: list[TakenTexts] = []
    num_tokens = num_cut = 0
    cutter = _cutter(tokenizer, max_length=max_length, overlap=overlap)
    for number, reader in enumerate(texts.readers):
        left_out: Counter[str] = Counter()
        progress = Progress(reader.source.limit)
        counts = np.zeros(3, np.int64)  # pieces, learned tokens, bytes
        document, of_document = None, 0
        for block, piece in _pieces(reader.blocks(left_out), tokenizer, cutter, progress):
            _append(arrays, block, piece, names, source=number)
            num_tokens += len(piece.token_ids_L)
            counts += [1, len(piece.token_ids_L) - piece.num_context, piece.num_bytes]
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
) -> None:
    is_learned_L = np.arange(len(piece.token_ids_L)) >= piece.num_context
    arrays.append(
        token_ids=piece.token_ids_L,
        weights=is_learned_L,
        answers=is_learned_L,
        lengths=len(piece.token_ids_L),
        rows=block.row,
        sources=names.setdefault((source, block.source), len(names)),
        num_bytes=piece.num_bytes,
    )


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
        **{name: facts[name] for name in ("num_cut", "max_length", "overlap", "has_end")},
    )
    return replace(report, source_weights=texts.weights, cached=cached)


def _cutter(tokenizer: "PreTrainedTokenizerBase", *, max_length: int, overlap: int) -> Cutter:
    bos = tokenizer.bos_token_id if adds_bos(tokenizer) else None
    return Cutter(bos=bos, eos=tokenizer.eos_token_id, max_length=max_length, overlap=overlap)


def _pieces(
    blocks: Iterator[TextBlock], tokenizer: "PreTrainedTokenizerBase", cutter: Cutter, progress: Progress
) -> Iterator[tuple[TextBlock, Piece]]:
    """The pieces of all documents, until the limit is reached, each with the block that it ends in."""
    for block, token_ids_T, num_bytes_T in _encoded(blocks, tokenizer):
        if block.begins and progress.is_full:
            progress.is_over = True
            break
        num = progress.take(len(token_ids_T), ends=block.ends)
        yield from ((block, piece) for piece in cutter.push(token_ids_T[:num], num_bytes_T[:num]))
        if block.ends or progress.is_over:
            yield from ((block, piece) for piece in cutter.end(complete=not progress.is_over))
            progress.end()
        if progress.is_over:
            break


def _encoded(
    blocks: Iterator[TextBlock], tokenizer: "PreTrainedTokenizerBase"
) -> Iterator[tuple[TextBlock, NDArray[np.int32], NDArray[np.int64]]]:
    """Each block with its tokens, and the bytes that each of them stands for."""
    for some in _batches(blocks):
        encoded = tokenizer(
            [block.text for block in some],
            add_special_tokens=False,
            # A text that spells out a special token does not mean it: it would end a document, say.
            split_special_tokens=True,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )
        for block, encoding in zip(some, encoded.encodings, strict=True):
            ends_T = np.fromiter((end for _, end in encoding.offsets), np.int64, len(encoding.ids))
            yield block, np.asarray(encoding.ids, np.int32), token_bytes(block.text, ends_T)


def token_bytes(text: str, ends_T: NDArray[np.int64]) -> NDArray[np.int64]:
    """Bytes (UTF-8) of `text` that each token stands for, from the character after its last one.

    Where a character is spread over several tokens, the first of them has its bytes; what no token stands for, such as
    blanks that a tokenizer drops, counts with the next token or the last. Their sum is that of the text.
    """
    if not len(ends_T):
        return np.zeros(0, np.int64)
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    sizes = 1 + (codes >= 0x80).astype(np.int64) + (codes >= 0x800) + (codes >= 0x10000)
    before = np.concatenate([[0], np.cumsum(sizes)])
    reached_T = np.maximum.accumulate(ends_T)
    reached_T[-1] = len(text)
    return np.diff(before[reached_T], prepend=0)


def _batches(blocks: Iterator[TextBlock]) -> Iterator[list[TextBlock]]:
    some: list[TextBlock] = []
    size = 0
    for block in blocks:
        some.append(block)
        size += len(block.text)
        if len(some) >= BLOCKS_AT_ONCE or size >= CHARS_AT_ONCE:
            yield some
            some, size = [], 0
    if some:
        yield some
