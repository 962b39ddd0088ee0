"""From documents to pieces of tokens, some blocks at a time, until a source's limit is reached.

Shapes: T tokens of a block.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ftk.core.types import TextBlock
from ftk.data.checks import adds_bos
from ftk.data.limit import Limit
from ftk.data.pieces import Cutter, Piece

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


def cutter_of(tokenizer: "PreTrainedTokenizerBase", *, max_length: int, overlap: int) -> Cutter:
    """What cuts the documents that a model of this tokenizer learns."""
    bos = tokenizer.bos_token_id if adds_bos(tokenizer) else None
    return Cutter(bos=bos, eos=tokenizer.eos_token_id, max_length=max_length, overlap=overlap)


def pieces_of(
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
