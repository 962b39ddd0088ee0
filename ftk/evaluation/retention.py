"""Whether a tuned model still knows what the base knew: its loss on a built-in general text.

Shapes: B rows, L positions.
"""

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ftk.core.types import Batch

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@cache
def general_text() -> str:
    """English prose on everyday and learned subjects, and a little Python, written for ftk."""
    return (Path(__file__).parent / "general.txt").read_text(encoding="utf-8")


def general_text_batches(
    tokenizer: "PreTrainedTokenizerBase", *, max_length: int, rows_per_batch: int = 8, pad_token_id: int = 0
) -> list[Batch]:
    """The general text as plain documents of at most `max_length` tokens, without a chat template.

    Every token but a document's first counts. All processes get the same batches: what is summed over the group and
    divided by the number of tokens summed likewise stays the same.
    """
    token_ids: list[int] = tokenizer(general_text(), verbose=False)["input_ids"]
    documents = [token_ids[start : start + max_length] for start in range(0, len(token_ids), max_length)]
    # A document of one token has nothing to predict.
    documents = [document for document in documents if len(document) > 1]
    return [
        _batch(documents[start : start + rows_per_batch], first=start, pad_token_id=pad_token_id)
        for start in range(0, len(documents), rows_per_batch)
    ]


def general_text_bytes(tokenizer: "PreTrainedTokenizerBase", *, max_length: int) -> int:
    """Bytes (UTF-8) of the text that the tokens which count in `general_text_batches` stand for."""
    text = general_text()
    encoded = tokenizer(text, return_offsets_mapping=True, verbose=False)
    offsets = encoded["offset_mapping"]
    num_bytes = len(text.encode())
    # The first token of each document does not count, and so its text does not; a special token has no text.
    for start in range(0, len(offsets), max_length):
        first, last = offsets[start]
        num_bytes -= len(text[first:last].encode())
    return num_bytes


def forgetting(before: float, after: float, *, max_forgetting: float) -> str | None:
    """A sentence for a person where the loss on general text rose by more than `max_forgetting` nats a token."""
    rise = after - before
    if rise <= max_forgetting:
        return None
    return (
        f"the model forgets: its loss on general text rose from {before:.3f} to {after:.3f} nats a token, by more than "
        f"evaluation.max_forgetting ({max_forgetting:g}). A lower learning rate, fewer epochs, LoRA with a lower rank, "
        "or general rows mixed into data.train keep more"
    )


def _batch(documents: list[list[int]], *, first: int, pad_token_id: int) -> Batch:
    longest = max(map(len, documents))
    lengths_B = torch.tensor([len(document) for document in documents])[:, None]
    position_ids_BL = torch.arange(longest).expand(len(documents), -1)
    is_real_BL = position_ids_BL < lengths_B
    counts_BL = is_real_BL & (position_ids_BL > 0)
    padded = [document + [pad_token_id] * (longest - len(document)) for document in documents]
    return Batch(
        input_ids_BL=torch.tensor(padded),
        # They run on through the padding: a second 0 would look like a second document.
        position_ids_BL=position_ids_BL.contiguous(),
        document_ids_BL=is_real_BL.long(),
        weights_BL=counts_BL.float(),
        answers_BL=counts_BL,
        packed=False,
        num_tokens=int(lengths_B.sum()),
        num_examples=len(documents),
        indices=tuple(range(first, first + len(documents))),
    )
