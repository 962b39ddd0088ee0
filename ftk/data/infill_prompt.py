"""What a model reads to fill a hole."""

from typing import TYPE_CHECKING

import numpy as np

from ftk.core.errors import DataError
from ftk.data.checks import adds_bos, check_tells_places
from ftk.data.infill_format import InfillFormat, find_format, set_apart
from ftk.data.infill_rows import arrange
from ftk.data.tokens import PartEncoder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class InfillPrompts:
    """Writes prompts with a hole, and reads the middles that come back."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        """
        Raises:
            DataError: the tokenizer has no infilling tokens.
        """
        check_tells_places(tokenizer)
        found = find_format(tokenizer)
        if found is None:
            raise DataError(
                f"{tokenizer.name_or_path or 'the model'} has no tokens for infilling, such as <|fim_prefix|>, so it "
                "has not learned to fill holes. Train it with task: infill, which adds them"
            )
        set_apart(tokenizer, found)
        self.format: InfillFormat = found
        self._encoder = PartEncoder(tokenizer)
        self._bos = [int(tokenizer.bos_token_id)] if adds_bos(tokenizer) else []

    def prompt(self, prefix: str, suffix: str, *, room: int | None = None) -> list[int]:
        """Prefix and suffix in this order, up to the mark before the middle.

        Args:
            room: most tokens of the prompt; what lies farthest from the hole is left out.
        """
        before, after = self._encoder.encode([prefix, suffix], goes_on=[False, True])
        prefix_T, suffix_T = before.token_ids_T, after.token_ids_T
        if room is not None:
            num_prefix, num_suffix = _share(len(prefix_T), len(suffix_T), max(0, room - len(self._bos) - 3))
            prefix_T, suffix_T = prefix_T[len(prefix_T) - num_prefix :], suffix_T[:num_suffix]
        nothing_T = np.zeros(0, np.int32)
        row = arrange(prefix_T, suffix_T, nothing_T, marks=self.format.marks, suffix_first=False)
        return [*self._bos, *row[:-1].tolist()]

    def middle(self, token_ids: list[int]) -> str:
        """The text of the tokens that a model wrote."""
        return self._encoder.decode(token_ids)


def _share(num_before: int, num_after: int, room: int) -> tuple[int, int]:
    """How much of either side is kept: half of the room each, and what the other does not need."""
    if num_before + num_after <= room:
        return num_before, num_after
    kept_before = min(num_before, max(room // 2, room - num_after))
    return kept_before, min(num_after, room - kept_before)
