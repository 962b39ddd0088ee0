"""Held-out holes: rows with a prefix, suffix and middle, and single lines taken out of texts."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import TYPE_CHECKING, Any

from ftk.core.errors import DataError
from ftk.data.checks import check_characters, check_tells_places
from ftk.data.infill_cuts import draw_line, generator
from ftk.data.settings import Source
from ftk.data.source import SourceRow
from ftk.data.text_limit import within_limit
from ftk.data.texts import RowTexts, TextReader, read_texts
from ftk.data.tokens import encode_texts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

COLUMNS = (("prefix", "suffix", "middle"), ("prompt", "suffix", "canonical_solution"))
"""What rows with holes call prefix, suffix and middle: plainly, or as the HumanEval infilling benchmarks do.

Source: Bavarian et al. 2022 (arXiv:2207.14255), section 4, and the files of its `human-eval-infilling`."""


@dataclass(frozen=True, slots=True)
class Hole:
    """A text with a hole, and what was there."""

    prefix: str
    suffix: str
    middle: str
    row: int
    """Line of its file where the document begins, or its row, from 1."""
    source: str
    columns: Mapping[str, Any]
    """All columns of the row, `prefix`, `suffix` and `middle` among them."""


def text_sources(sources: Sequence[Source]) -> tuple[Source, ...]:
    """Those of the sources that are texts and not rows with holes.

    Raises:
        DataError: a source is missing, or its first row does not read.
    """
    return tuple(source for source in sources if _rows_with_holes(read_texts([source]).readers[0]) is None)


def read_holes(
    sources: Sequence[Source], tokenizer: "PreTrainedTokenizerBase", *, context_tokens: int, seed: int
) -> list[Hole]:
    """The holes of rows that have them, and one line out of every `context_tokens` of texts, the same on each start.

    Raises:
        DataError: a row does not read, or lacks a part; or there is no hole.
    """
    check_tells_places(tokenizer)
    found: list[Hole] = []
    for reader in read_texts(sources, role="data.eval").readers:
        rows = _rows_with_holes(reader)
        found += (
            list(_lines_out_of(reader, tokenizer, context_tokens=context_tokens, seed=seed))
            if rows is None
            else [_hole(row, names) for row, names in rows]
        )
    if not found:
        raise DataError(
            "no line can be taken out of the held-out texts: each piece needs three lines, one of which says something",
            place="data.eval",
        )
    return found


def _rows_with_holes(reader: TextReader) -> Iterator[tuple[SourceRow, tuple[str, str, str]]] | None:
    """The rows with what they call their parts; None where the source is no rows with holes."""
    if not isinstance(reader, RowTexts):
        return None
    first = next(iter(reader.rows()))
    names = next((names for names in COLUMNS if all(name in first.columns for name in names)), None)
    if names is None:
        return None
    limit = reader.source.limit
    if limit is not None and limit.rows is None:
        raise DataError("a limit of rows with holes counts rows, such as limit: 500", place=reader.source.source)
    return ((row, names) for row in islice(reader.rows(), None if limit is None else limit.rows))


def _hole(row: SourceRow, names: tuple[str, str, str]) -> Hole:
    parts = [row.columns.get(name) for name in names]
    for name, part in zip(names, parts, strict=True):
        if not isinstance(part, str):
            raise DataError(f"the column {name} is {type(part).__name__}, expected text", place=row.place)
        check_characters(part, place=row.place)
    prefix, suffix, middle = map(str, parts)
    columns = {**row.columns, "prefix": prefix, "suffix": suffix, "middle": middle}
    return Hole(prefix, suffix, middle, row.number, row.name, columns)


def _lines_out_of(
    reader: TextReader, tokenizer: "PreTrainedTokenizerBase", *, context_tokens: int, seed: int
) -> Iterator[Hole]:
    for block in within_limit(reader.blocks(Counter()), reader.source.limit, tokenizer):
        ends_T = encode_texts(tokenizer, [block.text])[0].ends_T
        borders = [0, *(int(end) for end in ends_T[context_tokens - 1 : -1 : context_tokens]), len(block.text)]
        rng = generator(block.text, seed)
        for start, stop in pairwise(borders):
            piece = block.text[start:stop]
            line = draw_line(piece, rng)
            if line is not None:
                prefix, middle, suffix = piece[: line[0]], piece[line[0] : line[1]], piece[line[1] :]
                columns = {"prefix": prefix, "suffix": suffix, "middle": middle}
                row = block.row + block.text.count("\n", 0, start + line[0])
                yield Hole(prefix, suffix, middle, row, block.source, columns)
