"""`special_token_leak`: text that spells out a token by which a model tells turns apart."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from ftk.data.check.finding import Remark, Severity
from ftk.data.check.row import CheckedRow

KIND = "special_token_leak"
KNOWN = (
    *("<s>", "</s>", "<bos>", "<eos>", "<pad>", "<unk>", "[INST]", "[/INST]", "<<SYS>>", "<</SYS>>", "[PAD]", "[BOS]"),
    *("[EOS]", "<start_of_turn>", "<end_of_turn>", "<start_of_image>", "<turn|>", "<|turn>", "[gMASK]"),
    *("<|END_OF_TURN_TOKEN|>", "<|START_OF_TURN_TOKEN|>"),
)
"""Tokens of well-known families, beside the forms `<|name|>` and `<｜name｜>`."""
_FORMS = r"<\|[A-Za-z0-9_]+\|>|<｜[^<>\s]{1,40}｜>"


@dataclass(frozen=True)
class SpecialTokenLeak:
    """Looks for the special tokens of one tokenizer, or for those of well-known families where none is given."""

    tokens: tuple[str, ...] = ()

    def remarks(self, row: CheckedRow) -> Iterator[tuple[Remark, str]]:
        for turn in row.turns:
            if not self._may_leak(turn.text):
                continue
            match = self._pattern.search(turn.text)
            if match:
                yield self._remark(turn.side), match[0]
                return

    def _remark(self, side: str) -> Remark:
        severity: Severity = "error" if self.tokens else "warning"
        whose = "the model reads it as its own" if self.tokens else "a model of that family reads it as its own"
        return Remark(KIND, severity, f"{side} spells out a special token, and {whose}")

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        listed = [re.escape(token) for token in sorted(self.tokens or KNOWN, key=len, reverse=True)]
        return re.compile("|".join(listed if self.tokens else [_FORMS, *listed]))

    @cached_property
    def _firsts(self) -> tuple[str, ...]:
        return tuple({token[0] for token in self.tokens or ("<", "[")})

    def _may_leak(self, text: str) -> bool:
        return any(first in text for first in self._firsts)
