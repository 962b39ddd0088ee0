"""From documents to pieces of tokens, some blocks at a time, until a source's limit is reached."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ftk.core.types import TextBlock
from ftk.data.checks import adds_bos
from ftk.data.infill import InfillCutter, Infilling
from ftk.data.limit import Limit
from ftk.data.pieces import Cutter, Piece, PieceMaker, Stretch
from ftk.data.tokens import encode_texts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BLOCKS_AT_ONCE = 256
CHARS_AT_ONCE = 1 << 21
"""Text that is tokenized at a time: enough to keep the tokenizer's threads busy, few enough for its offsets to fit."""


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


def cutter_of(
    tokenizer: "PreTrainedTokenizerBase", *, max_length: int, overlap: int, infilling: Infilling | None
) -> Cutter | InfillCutter:
    """What cuts the documents that a model of this tokenizer learns, and rearranges them where `infilling` says how."""
    bos = tokenizer.bos_token_id if adds_bos(tokenizer) else None
    eos = tokenizer.eos_token_id
    if infilling is not None:
        return InfillCutter(tokenizer, infilling, bos=bos, eos=eos, max_length=max_length, overlap=overlap)
    return Cutter(bos=bos, eos=eos, max_length=max_length, overlap=overlap)


def pieces_of(
    blocks: Iterator[TextBlock], tokenizer: "PreTrainedTokenizerBase", cutter: PieceMaker, progress: Progress
) -> Iterator[tuple[TextBlock, Piece]]:
    """The pieces of all documents, until the limit is reached, each with the block that it ends in."""
    for block, stretch in _encoded(blocks, tokenizer):
        if block.begins and progress.is_full:
            progress.is_over = True
            break
        num = progress.take(len(stretch.token_ids_T), ends=block.ends)
        yield from ((block, piece) for piece in cutter.push(stretch.first(num)))
        if block.ends or progress.is_over:
            yield from ((block, piece) for piece in cutter.end(complete=not progress.is_over))
            progress.end()
        if progress.is_over:
            break


def _encoded(blocks: Iterator[TextBlock], tokenizer: "PreTrainedTokenizerBase") -> Iterator[tuple[TextBlock, Stretch]]:
    """Each block with its tokens, and the bytes that each of them stands for."""
    for some in _batches(blocks):
        texts = [block.text for block in some]
        for block, encoded in zip(some, encode_texts(tokenizer, texts), strict=True):
            yield block, Stretch(*encoded, block.text)


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
