"""The tokens that mark prefix, suffix, middle and end of an infilling row, as the tokenizer's family has them."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Family(NamedTuple):
    """How the models of one family write a hole."""

    name: str
    prefix: str
    suffix: str
    middle: str
    ends: tuple[str, ...]
    """Tokens that may end a middle, the first that is known is taken; else the tokenizer's end of text."""
    joins: bool = False
    """Whether prefix and middle are tokenized as one text where the suffix comes first."""
    psm_only: bool = False
    """Whether its models were trained on the prefix-suffix-middle order alone."""
    strays: tuple[str, ...] = ()
    """Tokens of its further formats at which a middle is over too, where a model goes on to write them."""


FAMILIES = (
    # Source: Rozière et al. 2023 (arXiv:2308.12950), section 2.3.
    Family("CodeLlama", "▁<PRE>", "▁<SUF>", "▁<MID>", ("▁<EOT>",), joins=True),
    # Source: Li et al. 2023 (arXiv:2305.06161), section 5.2.
    Family("StarCoder", "<fim_prefix>", "<fim_suffix>", "<fim_middle>", ("<|endoftext|>",)),
    # Source: Guo et al. 2024 (arXiv:2401.14196), section 3.1.2: begin, prefix, hole, suffix, end, middle.
    Family(
        "DeepSeek-Coder",
        "<｜fim▁begin｜>",
        "<｜fim▁hole｜>",
        "<｜fim▁end｜>",
        ("<｜end▁of▁sentence｜>",),
        psm_only=True,
    ),
    # Source: Hui et al. 2024 (arXiv:2409.12186), section 3.2; where a middle is over, examples/Qwen2.5-Coder-fim.py of
    # the models' own repository.
    Family(
        "Qwen-Coder",
        "<|fim_prefix|>",
        "<|fim_suffix|>",
        "<|fim_middle|>",
        ("<|endoftext|>",),
        psm_only=True,
        strays=("<|fim_pad|>", "<|repo_name|>", "<|file_sep|>", "<|im_end|>"),
    ),
)
ADDED = FAMILIES[-1]
"""The family whose names tokens get where a tokenizer has none."""


@dataclass(frozen=True)
class InfillFormat:
    """The infilling tokens of one tokenizer."""

    family: str
    prefix: int
    suffix: int
    middle: int
    end: int
    """Ends a middle."""
    joins: bool
    """Whether prefix and middle are tokenized as one text where the suffix comes first."""
    psm_only: bool
    strays: tuple[int, ...] = ()
    """Further tokens at which a middle that a model writes is over."""

    @property
    def given(self) -> tuple[int, int, int]:
        """The tokens that say what follows: always there when a hole is filled, and never learned."""
        return self.prefix, self.suffix, self.middle

    @property
    def marks(self) -> tuple[int, int, int, int]:
        """What stands before prefix, suffix and middle, and at the end."""
        return self.prefix, self.suffix, self.middle, self.end

    @property
    def stops(self) -> tuple[int, ...]:
        """The tokens at which a middle that a model writes is over: its end, and those that no middle has in it."""
        return tuple(dict.fromkeys([self.end, *self.given, *self.strays]))


def find_format(tokenizer: "PreTrainedTokenizerBase") -> InfillFormat | None:
    """The infilling tokens that the tokenizer knows; None where it lacks some."""
    known = tokenizer.get_vocab()
    for family in FAMILIES:
        named = (family.prefix, family.suffix, family.middle)
        if all(token in known for token in named):
            ends = [known[token] for token in family.ends if token in known]
            end = ends[0] if ends else tokenizer.eos_token_id
            if end is not None:
                prefix, suffix, middle = (int(known[token]) for token in named)
                strays = tuple(int(known[token]) for token in family.strays if token in known)
                return InfillFormat(
                    family.name, prefix, suffix, middle, int(end), family.joins, family.psm_only, strays
                )
    return None


def set_apart(tokenizer: "PreTrainedTokenizerBase", marks: InfillFormat) -> None:
    """Make the tokens special to the tokenizer, which those of Qwen-Coder are not, nor those of DeepSeek-Coder.

    A text that spells one out would otherwise be read as the token itself, and end a prefix, say.
    """
    added = tokenizer.added_tokens_decoder
    plain = [added[number] for number in (*marks.given, *marks.strays) if number in added and not added[number].special]
    if plain:
        tokenizer.add_tokens(plain, special_tokens=True)


def add_format(tokenizer: "PreTrainedTokenizerBase") -> tuple[InfillFormat, tuple[str, ...]]:
    """The tokenizer with Qwen-Coder's infilling tokens, and what was added; an end only where it has no end of text."""
    before = tokenizer.get_vocab()
    wanted = [ADDED.prefix, ADDED.middle, ADDED.suffix]
    if tokenizer.eos_token_id is None:
        wanted += ADDED.ends[:1]
    new = tuple(token for token in wanted if token not in before)
    # A list of further special tokens would otherwise take the place of those that are there.
    tokenizer.add_tokens(list(new), special_tokens=True)
    found = find_format(tokenizer)
    assert found is not None
    return found, new
