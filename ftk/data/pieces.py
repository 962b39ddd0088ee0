"""From the tokens of documents to pieces of at most `max_length`.

Shapes: T tokens of a stretch, L tokens of a piece.
"""

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray


class Stretch(NamedTuple):
    """A document as its tokenizer sees it, or as much of it as is held at once."""

    token_ids_T: NDArray[np.int32]
    num_bytes_T: NDArray[np.int64]
    """Bytes of text that each token stands for; their sum is that of the text."""
    ends_T: NDArray[np.int64] = np.zeros(0, np.int64)
    """The character of the text after each token's last one."""
    text: str = ""

    def first(self, num_tokens: int) -> "Stretch":
        """Its first tokens, and the text that they stand for."""
        if num_tokens == len(self.token_ids_T):
            return self
        stop = int(self.ends_T[num_tokens - 1]) if num_tokens and len(self.ends_T) else 0
        return Stretch(
            self.token_ids_T[:num_tokens], self.num_bytes_T[:num_tokens], self.ends_T[:num_tokens], self.text[:stop]
        )


class Piece(NamedTuple):
    """A document, or as much of it as a row may hold."""

    token_ids_L: NDArray[np.int32]
    num_context: int
    """Tokens at its beginning that are not learned: a BOS or the first of all, and what an earlier piece teaches."""
    num_bytes: int
    """Bytes of text that its learned tokens stand for."""
    given: tuple[int, ...] = ()
    """Token ids that are not learned wherever they stand."""
    own_weights_L: NDArray[np.float32] | None = None
    """Loss weight of each token, if it is learned; None is 1."""

    @property
    def is_learned_L(self) -> NDArray[np.bool_]:
        is_new_L = np.arange(len(self.token_ids_L)) >= self.num_context
        return is_new_L & ~np.isin(self.token_ids_L, self.given) if self.given else is_new_L

    @property
    def weights_L(self) -> NDArray[np.float32]:
        """Loss weight of each token; 0 where it is not learned."""
        is_learned_L = self.is_learned_L.astype(np.float32)
        return is_learned_L if self.own_weights_L is None else is_learned_L * self.own_weights_L

    def weighted(self, weights_T: NDArray[np.float32]) -> "Piece":
        """The piece with the weights of its tokens behind the context; there may be more of them than it has tokens."""
        num_new = len(self.token_ids_L) - self.num_context
        context = np.zeros(self.num_context, np.float32)
        return self._replace(own_weights_L=np.concatenate([context, weights_T[:num_new]]))


class PieceMaker(Protocol):
    """Makes pieces of one document after another, given in stretches."""

    def push(self, stretch: Stretch) -> Iterator[Piece]:
        """The pieces that are full with this further stretch of the document."""

    def end(self, *, complete: bool = True) -> Iterator[Piece]:
        """What is left of the document, which `complete` says is whole."""


class Cutter:
    """Cuts one document after another, given in stretches, into pieces.

    Every token is learned exactly once but the first of a document, which nothing comes before; with a BOS that is the
    BOS. A further piece begins with the BOS, if there is one, and with the `overlap` tokens before it; without a BOS
    at least with one, or its first token would be learned nowhere.
    """

    def __init__(self, *, bos: int | None, eos: int | None, max_length: int, overlap: int) -> None:
        self._bos = bos
        self._eos = eos
        self._max_length = max_length
        self._keep = overlap if bos is not None else max(1, overlap)
        self._token_ids: NDArray[np.int32] = np.zeros(0, np.int32)
        self._num_bytes: NDArray[np.int64] = np.zeros(0, np.int64)
        self._prefix = self._only_bos()
        self._has_begun = False

    def push(self, stretch: Stretch) -> Iterator[Piece]:
        """The pieces that are full with this further stretch of the document."""
        self._has_begun = self._has_begun or len(stretch.token_ids_T) > 0
        self._token_ids = np.concatenate([self._token_ids, stretch.token_ids_T])
        self._num_bytes = np.concatenate([self._num_bytes, stretch.num_bytes_T])
        yield from self._full()

    def end(self, *, complete: bool = True) -> Iterator[Piece]:
        """What is left of the document; with its end, if it is `complete` and the tokenizer has a token for that."""
        if complete and self._eos is not None and self._has_begun:
            yield from self.push(Stretch(np.array([self._eos], np.int32), np.zeros(1, np.int64)))
        if len(self._token_ids):
            piece = self._piece(len(self._token_ids))
            # A document of a single token without a BOS or an end has nothing to learn.
            if piece.num_context < len(piece.token_ids_L):
                yield piece
        self._begin()

    def _full(self) -> Iterator[Piece]:
        while len(self._token_ids) >= self._max_length - len(self._prefix):
            yield self._piece(self._max_length - len(self._prefix))

    def _piece(self, num_new: int) -> Piece:
        new, prefix = self._token_ids[:num_new], self._prefix
        num_first = int(len(prefix) == 0)
        piece = Piece(
            np.concatenate([prefix, new]), len(prefix) + num_first, int(self._num_bytes[num_first:num_new].sum())
        )
        self._token_ids, self._num_bytes = self._token_ids[num_new:], self._num_bytes[num_new:]
        own = piece.token_ids_L[self._bos is not None :]
        self._prefix = np.concatenate([self._only_bos(), own[max(0, len(own) - self._keep) :]])
        return piece

    def _begin(self) -> None:
        self._token_ids = np.zeros(0, np.int32)
        self._num_bytes = np.zeros(0, np.int64)
        self._prefix = self._only_bos()
        self._has_begun = False

    def _only_bos(self) -> NDArray[np.int32]:
        return np.array([] if self._bos is None else [self._bos], np.int32)
