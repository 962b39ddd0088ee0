"""A tokenizer for models whose vocabulary is a few dozen random rows."""

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def with_tokenizer() -> Callable[[Path], None]:
    """Give a model's folder a tokenizer of words: w0, w1, ... and a few English ones."""

    def add(folder: Path, num_tokens: int = 64) -> None:
        from tokenizers import Tokenizer
        from tokenizers.models import WordLevel
        from tokenizers.pre_tokenizers import Whitespace
        from transformers import PreTrainedTokenizerFast

        words = ["<unk>", "<s>", "</s>", "one", "two", "three"]
        words += [f"w{number}" for number in range(num_tokens - len(words))]
        tokenizer = Tokenizer(WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
        tokenizer.pre_tokenizer = Whitespace()
        fast = PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="</s>"
        )
        fast.save_pretrained(folder)

    return add
