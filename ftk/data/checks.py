"""What must hold for every rendered row, so that no healthy-looking loss hides a broken one.

Shapes: L positions.
"""

from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ftk.core.errors import DataError
from ftk.core.types import Comparison, Conversation

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def place_of(row: Conversation | Comparison) -> str:
    """The row as errors name it, `file:row`."""
    return f"{row.source}:{row.row}"


def half_a_character(place: str | None) -> DataError:
    """The error of text that has no UTF-8."""
    return DataError(
        "there is half of a character (a lone surrogate), which no file can hold and no tokenizer reads. "
        "`ftk data fix` takes it out",
        place=place,
    )


def check_characters(text: str, *, place: str) -> None:
    """
    Raises:
        DataError: there is half a pair of surrogates, which JSON can spell.
    """
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise half_a_character(place) from error


def check_tells_places(tokenizer: "PreTrainedTokenizerBase") -> None:
    """
    Raises:
        DataError: the tokenizer cannot tell where its tokens lie in a text.
    """
    if not tokenizer.is_fast:
        raise DataError(
            f"{tokenizer.name_or_path or 'the model'} has a tokenizer written in Python, which does not tell where "
            "its tokens lie in the text. Use a model folder with tokenizer.json"
        )


def adds_bos(tokenizer: "PreTrainedTokenizerBase") -> bool:
    """Whether the tokenizer by itself puts its BOS before a text."""
    return tokenizer.bos_token_id is not None and tokenizer("x")["input_ids"][:1] == [tokenizer.bos_token_id]


def check_learned(weights_L: NDArray[np.float32], answers_L: NDArray[np.bool_], *, place: str) -> None:
    """
    Raises:
        DataError: no token of an answer is learned.
    """
    if not (answers_L & (weights_L > 0)).any():
        raise DataError(
            "the row has nothing to learn: none of its tokens belongs to an answer", place=place, finding="empty"
        )


def check_end_of_turn(last_token_id: int, end_token_id: int, end_token: str, *, place: str) -> None:
    """
    Raises:
        DataError: the last learned token of an answer is not its end of turn.
    """
    if last_token_id != end_token_id:
        raise DataError(
            f"the end-of-turn token {end_token!r} would not be learned: the tokenizer splits it, or joins it with what "
            "stands before it. Name a template whose end-of-turn token the tokenizer knows in data.chat_template",
            place=place,
            finding="no_end",
        )


def check_bos(
    token_ids_L: NDArray[np.int32], bos_token_id: int | None, end_token_ids: Collection[int], *, place: str
) -> None:
    """A BOS may stand at the beginning, and after an end of turn where a template begins each turn with one.

    Raises:
        DataError: two at the beginning, or one within a turn.
    """
    if bos_token_id is None or bos_token_id in end_token_ids:
        return
    (found,) = np.nonzero(token_ids_L[1:] == bos_token_id)
    for before in found:
        if before == 0 and token_ids_L[0] == bos_token_id:
            raise DataError(
                "the row begins with two BOS tokens: the chat template writes one and the row or the template another. "
                "Take one out",
                place=place,
            )
        if token_ids_L[before] not in end_token_ids:
            raise DataError(
                "there is a BOS token within a turn: the text of the row spells it out. Take it out of the row",
                place=place,
                finding="special_token_leak",
            )
