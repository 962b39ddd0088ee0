"""Choosing tokens, and text from tokens as they come."""

import pytest
import torch
from data_stand_in import byte_tokenizer
from tokenizers import Tokenizer, decoders, models, normalizers
from transformers import PreTrainedTokenizerFast

from ftk.generation.detokenize import Detokenizer
from ftk.generation.sampling import choose


def at(logits: list[float], uniform: float, **settings: float) -> int:
    found = choose(torch.tensor([logits]), torch.tensor([uniform]), **{"temperature": 1.0, "top_p": 1.0} | settings)
    return int(found)


def test_draws_read_the_cumulated_probabilities():
    logits = torch.tensor([0.1, 0.6, 0.3]).log().tolist()
    # The most probable token first: 1 below 0.6, 2 below 0.9, then 0.
    assert [at(logits, uniform) for uniform in (0.0, 0.59, 0.61, 0.89, 0.91, 0.999999)] == [1, 1, 2, 2, 0, 0]


def test_temperature_flattens():
    logits = torch.tensor([0.2, 0.8]).log().tolist()
    # At temperature 2 probabilities go as square roots: 1/3 and 2/3.
    assert [at(logits, uniform, temperature=2.0) for uniform in (0.66, 0.67)] == [1, 0]
    assert at(logits, 0.9999, temperature=0.0) == 1


def test_top_p_keeps_the_fewest_tokens_and_renormalises():
    logits = torch.tensor([0.5, 0.3, 0.2]).log().tolist()
    # 0.5 does not reach 0.6, so two tokens stay, at 5/8 and 3/8.
    assert [at(logits, uniform, top_p=0.6) for uniform in (0.62, 0.63, 0.999999)] == [0, 1, 1]
    assert at(logits, 0.999999, top_p=0.4) == 0


def test_frequencies_are_the_probabilities():
    logits = torch.randn(6, generator=torch.Generator().manual_seed(0))
    num = 200_000
    uniform = (torch.arange(num) + 0.5) / num
    found = choose(logits.expand(num, -1), uniform, temperature=1.0, top_p=1.0)
    frequencies = torch.bincount(found, minlength=6) / num
    torch.testing.assert_close(frequencies, torch.softmax(logits, -1), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "text", ["naïve café", "雪が降る。", "👩‍👩‍👧 family", "a\n\n  b", "", "ends in half a snow \u2603"]
)
def test_characters_are_told_once_they_are_complete(text):
    tokenizer = byte_tokenizer()
    detokenizer = Detokenizer(tokenizer)
    pieces = [detokenizer.push(token) for token in tokenizer(text, add_special_tokens=False)["input_ids"]]
    assert "".join(pieces) == text
    assert all("\ufffd" not in piece for piece in pieces)
    assert max((len(piece) for piece in pieces), default=0) <= 1, "one byte a token tells at most one character"
    assert detokenizer.flush() == ""


def test_half_a_character_at_the_end_is_told_by_flush():
    tokenizer = byte_tokenizer()
    detokenizer = Detokenizer(tokenizer)
    tokens = tokenizer("a☃", add_special_tokens=False)["input_ids"][:-1]
    assert "".join(detokenizer.push(token) for token in tokens) == "a"
    assert detokenizer.flush() == "\ufffd"


def test_spaces_between_words_survive():
    # As SentencePiece writes: a space is part of the next word, and the first one's is dropped.
    vocabulary = {"<unk>": 0, "▁Hello": 1, "▁wor": 2, "ld": 3, "▁again": 4}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    backend.normalizer = normalizers.Sequence([])
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    detokenizer = Detokenizer(PreTrainedTokenizerFast(tokenizer_object=backend))
    assert [detokenizer.push(token) for token in (1, 2, 3, 4)] == ["Hello", " wor", "ld", " again"]


def test_special_tokens_are_not_told():
    tokenizer = byte_tokenizer()
    detokenizer = Detokenizer(tokenizer)
    tokens = tokenizer("a<|im_start|>b", add_special_tokens=False)["input_ids"]
    assert "".join(detokenizer.push(token) for token in tokens) == "ab"
