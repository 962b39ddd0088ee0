"""Text from tokens as they come."""

from collections.abc import Sequence
from typing import Protocol

_UNFINISHED = "�"
"""What decoders write for bytes that are not, or not yet, a character."""


class Decodes(Protocol):
    """The part of a tokenizer that is needed."""

    def decode(self, token_ids: Sequence[int], /, *, skip_special_tokens: bool) -> str: ...


class Detokenizer:
    """Gives out the text of a growing row of tokens, each character once and only when it is complete.

    A token alone does not tell its text: a character may be spread over several tokens, and some tokenizers write a
    space only between two tokens. So a little of what came before is decoded again with what is new, and the
    difference is given out.
    """

    def __init__(self, tokenizer: Decodes) -> None:
        self._tokenizer = tokenizer
        self._token_ids: list[int] = []
        self._context = 0
        """Where decoding begins: tokens from here to `_told` are told already, and stand there for what follows."""
        self._told = 0

    def push(self, token_id: int) -> str:
        """The text that became complete with this token; empty while a character is not."""
        self._token_ids.append(token_id)
        whole = self._decode(self._context, len(self._token_ids))
        return "" if whole.endswith(_UNFINISHED) else self._tell(whole)

    def flush(self) -> str:
        """What is left at the end, complete or not."""
        return self._tell(self._decode(self._context, len(self._token_ids)))

    def _tell(self, whole: str) -> str:
        known = self._decode(self._context, self._told)
        self._context, self._told = self._told, len(self._token_ids)
        return whole[len(known) :]

    def _decode(self, start: int, end: int) -> str:
        return self._tokenizer.decode(self._token_ids[start:end], skip_special_tokens=True)
