"""Texts as tokens that know the bytes they stand for.

Shapes: T tokens of a text.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_ANCHOR = "☺"
"""Stands before a text that goes on from another; no vocabulary joins it with what follows."""
_BLANKS = ("▁", "Ġ")
"""How vocabularies write a blank."""


class Encoded(NamedTuple):
    """A text as tokens."""

    token_ids_T: NDArray[np.int32]
    num_bytes_T: NDArray[np.int64]
    """Bytes (UTF-8) that each token stands for; their sum is that of the text."""
    ends_T: NDArray[np.int64]
    """The character after each token's last one."""


def encode_texts(tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str]) -> list[Encoded]:
    """Each text by itself, without a BOS or an end."""
    if not texts:
        return []
    encoded = tokenizer(
        list(texts),
        add_special_tokens=False,
        # A text that spells out a special token does not mean it: it would end a document, say.
        split_special_tokens=True,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,
    )
    some = []
    for text, encoding in zip(texts, encoded.encodings, strict=True):
        ends_T = np.fromiter((end for _, end in encoding.offsets), np.int64, len(encoding.ids))
        some.append(Encoded(np.asarray(encoding.ids, np.int32), token_bytes(text, ends_T), ends_T))
    return some


class PartEncoder:
    """Encodes texts that go on from other texts: without the blank that some tokenizers put before any text.

    Source: Rozière et al. 2023 (arXiv:2308.12950), section 2.3, for middles and suffixes without that blank.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        self._tokenizer = tokenizer
        first = tokenizer.convert_ids_to_tokens(encode_texts(tokenizer, ["x"])[0].token_ids_T.tolist()[:1])
        self._puts_a_blank = bool(first) and first[0].startswith(_BLANKS)

    def encode(self, texts: Sequence[str], *, goes_on: Sequence[bool]) -> list[Encoded]:
        """Each text by itself; those that go on from something without a blank of the tokenizer's own."""
        if not self._puts_a_blank:
            return encode_texts(self._tokenizer, texts)
        anchored = [_ANCHOR + text if on else text for text, on in zip(texts, goes_on, strict=True)]
        found = encode_texts(self._tokenizer, anchored)
        return [_behind_anchor(one) if on else one for one, on in zip(found, goes_on, strict=True)]

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of tokens that go on from others, its first blank included."""
        before = encode_texts(self._tokenizer, [_ANCHOR])[0].token_ids_T.tolist() if self._puts_a_blank else []
        text, known = (
            str(self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))
            for ids in ([*before, *token_ids], before)
        )
        return text[len(known) :]


def _behind_anchor(encoded: Encoded) -> Encoded:
    first = int((encoded.ends_T <= len(_ANCHOR)).sum())
    return Encoded(encoded.token_ids_T[first:], encoded.num_bytes_T[first:], encoded.ends_T[first:] - len(_ANCHOR))


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
