"""The texts of a source up to its limit, whole: what is learned of the last one may be less."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ftk.core.types import TextBlock
from ftk.data.limit import Limit
from ftk.data.text_pieces import Progress

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def within_limit(
    blocks: Iterator[TextBlock], limit: Limit | None, tokenizer: "PreTrainedTokenizerBase | None"
) -> Iterator[TextBlock]:
    """The blocks of the documents that a limit takes; without a `tokenizer` one of tokens takes all."""
    progress = Progress(limit)
    for block in blocks:
        if block.begins and progress.is_full:
            return
        yield block
        if limit is not None and limit.tokens is not None and tokenizer is not None:
            encoded = tokenizer(block.text, add_special_tokens=False, split_special_tokens=True, verbose=False)
            progress.take(len(encoded["input_ids"]), ends=block.ends)
        if block.ends:
            progress.end()
        if progress.is_over:
            return
