"""A byte-level tokenizer without merges, and conversations, for tests of rendering."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from ftk.core.types import Conversation, Examples

CHAT_TOKENS = ("<|im_start|>", "<|im_end|>")
_CONTROL = re.compile(r"<\|[^<>|\s'\"{}]+\|>|<｜[^<>\s'\"{}]+｜>|<\|[a-z_\"]+>|<[a-z_\"]+\|>|</?[a-z_]+>|\[/?INST\]")
_CONTENT = re.compile(r"</?(think|tool_call|tool_response|tools|function|parameter)[^>]*>")
"""Marks within answers, which tokenizers keep whole without calling them special."""


def byte_tokenizer(
    *,
    bos: str | None = "<s>",
    eos: str = "</s>",
    pad: str | None = None,
    tokens: Sequence[str] = CHAT_TOKENS,
    adds_bos: bool = False,
    chat_template: str | None = None,
) -> PreTrainedTokenizerFast:
    """One token a byte, besides the special `tokens`."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={letter: place for place, letter in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    names = dict.fromkeys([*tokens, eos, *([bos] if bos else []), *([pad] if pad else [])])
    backend.add_tokens([AddedToken(name, special=not _CONTENT.fullmatch(name), normalized=False) for name in names])
    if adds_bos:
        assert bos is not None
        backend.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, backend.token_to_id(bos))]
        )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token=bos, eos_token=eos, pad_token=pad)
    tokenizer.chat_template = chat_template
    return tokenizer


def control_tokens_of(template: str) -> list[str]:
    """What looks like a control token in the text of a template."""
    return sorted(set(_CONTROL.findall(template)))


def user(content: str) -> dict[str, Any]:
    return {"role": "user", "content": content}


def assistant(content: str, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **more}


def conversation(*messages: dict[str, Any], row: int = 1, tools: Sequence[dict[str, Any]] = ()) -> Conversation:
    return Conversation(messages, row, "rows.jsonl", {}, tuple(tools))


def examples_of(lengths: Sequence[int], *, sources: Sequence[int] | None = None) -> Examples:
    """Rows of these lengths: token n of row r is 100 r + n, the first half is prompt."""
    rows = [np.arange(100 * row, 100 * row + length, dtype=np.int32) for row, length in enumerate(lengths)]
    answers = [np.arange(length) >= length // 2 for length in lengths]
    for answer in answers:
        answer[0] = False
    numbers = np.array(sources if sources is not None else [0] * len(lengths), np.int32)
    return Examples(
        token_ids=np.concatenate(rows),
        weights=np.concatenate(
            [np.where(answer, 1.0, 0.1) * (np.arange(len(answer)) > 0) for answer in answers]
        ).astype(np.float32),
        answers=np.concatenate(answers),
        offsets=np.cumsum([0, *lengths], dtype=np.int64),
        rows_N=np.arange(1, len(lengths) + 1),
        sources_N=numbers,
        source_names=tuple(f"file{number}.jsonl" for number in range(int(numbers.max()) + 1)),
    )
