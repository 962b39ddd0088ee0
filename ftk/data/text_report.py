"""What became of plain texts: how much of each source was taken, cut and left out."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from ftk.data.infill_report import InfillReport
from ftk.data.text_files import counted, tally_line


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
    infill: InfillReport | None = None
    """What was rearranged for infilling; None where nothing is."""
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
        if self.infill is not None:
            lines += self.infill.lines()
        if not self.has_end:
            lines.append("the tokenizer has no end-of-text token: where documents end is not learned")
        return lines
