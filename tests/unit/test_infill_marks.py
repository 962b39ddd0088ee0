"""Infilling tokens that the tokenizer does not hold for special, as Qwen-Coder's and DeepSeek-Coder's are."""

from pathlib import Path

import pytest
from infill_tokenizers import FAMILIES, of_bytes
from tokenizers import AddedToken
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from ftk.data.infill_format import find_format, set_apart
from ftk.data.infill_prompt import InfillPrompts
from ftk.data.tokens import encode_texts

STRAYS = ("<|fim_pad|>", "<|repo_name|>", "<|file_sep|>")


def with_plain_marks(name: str = "Qwen-Coder") -> PreTrainedTokenizerFast:
    """The end of text alone is special."""
    *marks, end = FAMILIES[name]
    tokenizer = of_bytes(eos=end)
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in (*marks, *STRAYS)])
    return tokenizer


@pytest.mark.parametrize("name", ["Qwen-Coder", "DeepSeek-Coder"])
def test_a_text_that_spells_out_a_mark_does_not_mean_it(name: str) -> None:
    tokenizer = with_plain_marks(name)
    num_before = len(tokenizer)
    ids = tokenizer.convert_tokens_to_ids(list(FAMILIES[name]))
    text = f'marks = "{FAMILIES[name][1]}"\n'
    assert ids[1] in encode_texts(tokenizer, [text])[0].token_ids_T
    prompts = InfillPrompts(tokenizer)
    prompt = prompts.prompt(text, text)
    assert [token for token in prompt if token in ids] == ids[:3]
    at_suffix, at_middle = prompt.index(ids[1]), prompt.index(ids[2])
    assert tokenizer.decode(prompt[1:at_suffix]) == tokenizer.decode(prompt[at_suffix + 1 : at_middle]) == text
    assert len(tokenizer) == num_before
    assert tokenizer.convert_tokens_to_ids(list(FAMILIES[name])) == ids


def test_no_mark_is_in_a_middle() -> None:
    """Against the ends that the models' own example gives: ids 151643, 151645 and 151659 to 151664."""
    tokenizer = with_plain_marks()
    tokenizer.add_tokens(["<|im_end|>"], special_tokens=True)
    prompts = InfillPrompts(tokenizer)
    *marks, end = tokenizer.convert_tokens_to_ids(list(FAMILIES["Qwen-Coder"]))
    strays = tokenizer.convert_tokens_to_ids([*STRAYS, "<|im_end|>"])
    assert set(prompts.format.stops) == {end, *marks, *strays}
    assert prompts.format.stops[0] == prompts.format.end == end
    letters = tokenizer("ab")["input_ids"]
    assert prompts.middle([*letters, strays[0], marks[0]]) == "ab"


def test_what_is_set_apart_is_so_once_saved(tmp_path: Path) -> None:
    tokenizer = with_plain_marks()
    found = find_format(tokenizer)
    assert found is not None
    set_apart(tokenizer, found)
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert again.get_vocab() == tokenizer.get_vocab()
    assert find_format(again) == found
    assert found.prefix not in encode_texts(again, ["<|fim_prefix|>"])[0].token_ids_T
    assert again.added_tokens_decoder[found.prefix].special
