"""ftk://tiny as it ships: its size, its tokenizer's promises, and its chat template's answer mask."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

TINY = Path(__file__).resolve().parents[2] / "ftk" / "models" / "tiny"
SPECIAL_TOKENS = [
    "<|pad|>", "<|begin|>", "<|end|>", "<|im_start|>", "<|im_end|>", "<tools>", "</tools>", "<tool_call>",
    "</tool_call>", "<tool_response>", "</tool_response>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>",
]  # fmt: skip
CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 1, "b": 2}}}
CONVERSATION = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What is 1 + 2?"},
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "content": "3"},
    {"role": "assistant", "content": "\n  It is 3.\n"},
    {"role": "user", "content": "Thank you — merci ☕"},
    {"role": "assistant", "content": "Welcome."},
]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(TINY)


def test_folder_is_complete_and_at_most_six_megabytes() -> None:
    names = {path.name for path in TINY.iterdir()}
    needed = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}
    assert needed | {"generation_config.json", "README.md"} == names
    assert sum(path.stat().st_size for path in TINY.iterdir()) <= 6_000_000


def test_model_is_a_small_llama_that_computes_in_float32() -> None:
    model = AutoModelForCausalLM.from_pretrained(TINY)
    assert model.config.model_type == "llama"
    assert model.config.tie_word_embeddings
    assert model.dtype == torch.float32
    assert 1_000_000 <= model.num_parameters() <= 3_000_000


def test_weights_are_finite() -> None:
    assert all(tensor.isfinite().all() for tensor in load_file(TINY / "model.safetensors").values())


def test_special_tokens_are_single_and_distinct(tokenizer: PreTrainedTokenizerBase) -> None:
    ids = [tokenizer(token, add_special_tokens=False)["input_ids"] for token in SPECIAL_TOKENS]
    assert all(len(each) == 1 for each in ids)
    assert len({each[0] for each in ids}) == len(SPECIAL_TOKENS)
    turn_end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert tokenizer.pad_token_id not in (tokenizer.eos_token_id, turn_end, None)
    assert len(tokenizer) == json.loads((TINY / "config.json").read_text())["vocab_size"]


def test_generation_stops_at_the_end_of_a_turn(tokenizer: PreTrainedTokenizerBase) -> None:
    settings = json.loads((TINY / "generation_config.json").read_text())
    turn_end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert set(settings["eos_token_id"]) == {turn_end, tokenizer.eos_token_id}
    assert settings["pad_token_id"] == tokenizer.pad_token_id
    assert settings["do_sample"] is False


def test_digits_are_apart(tokenizer: PreTrainedTokenizerBase) -> None:
    ids = tokenizer("20250314 x12y", add_special_tokens=False)["input_ids"]
    assert [tokenizer.decode([each]) for each in ids] == [*"20250314", " ", "x", "1", "2", "y"]


def test_a_word_has_the_same_tokens_in_prose_and_in_json(tokenizer: PreTrainedTokenizerBase) -> None:
    prose = tokenizer("to Brandolin in", add_special_tokens=False)["input_ids"]
    quoted = tokenizer('{"a":"Brandolin"}', add_special_tokens=False)["input_ids"]
    word = tokenizer("Brandolin", add_special_tokens=False)["input_ids"]
    assert any(prose[i : i + len(word)] == word for i in range(len(prose)))
    assert any(quoted[i : i + len(word)] == word for i in range(len(quoted)))


@pytest.mark.parametrize(
    "text",
    ["", " ", "a  b\t\r\n\n    c", "Zürich — 東京 🚢 ﬁ", "don't , stop .", "\x00\u200b", 'x="{\\n}"; y = -1.5e-10'],
)
def test_text_survives_byte_for_byte(tokenizer: PreTrainedTokenizerBase, text: str) -> None:
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text


def test_exactly_one_begin_token_in_text_and_in_chat(tokenizer: PreTrainedTokenizerBase) -> None:
    rendered = tokenizer.apply_chat_template(CONVERSATION, tokenize=False)
    rows = [
        tokenizer("plain text")["input_ids"],
        tokenizer(rendered, add_special_tokens=False)["input_ids"],
        tokenizer.apply_chat_template(CONVERSATION, return_dict=True)["input_ids"],
    ]
    assert all(row[0] == tokenizer.bos_token_id and row.count(tokenizer.bos_token_id) == 1 for row in rows)


def test_answer_mask_covers_each_answer_and_its_end_of_turn(tokenizer: PreTrainedTokenizerBase) -> None:
    row = tokenizer.apply_chat_template(CONVERSATION, return_dict=True, return_assistant_tokens_mask=True)
    spans, previous = [], 0
    for token, answer in zip(row["input_ids"], row["assistant_masks"], strict=True):
        if answer and not previous:
            spans.append([])
        if answer:
            spans[-1].append(token)
        previous = answer
    assert [tokenizer.decode(span) for span in spans] == [
        '<tool_call>{"name": "add", "arguments": {"a": 1, "b": 2}}</tool_call><|im_end|>',
        "\n  It is 3.\n<|im_end|>",
        "Welcome.<|im_end|>",
    ]


def test_template_renders_in_pieces_as_it_does_whole(tokenizer: PreTrainedTokenizerBase) -> None:
    whole = tokenizer.apply_chat_template(CONVERSATION, return_dict=True)["input_ids"]
    for end, message in enumerate(CONVERSATION):
        part = tokenizer.apply_chat_template(CONVERSATION[: end + 1], return_dict=True)["input_ids"]
        assert whole[: len(part)] == part
        if message["role"] == "assistant":
            prompt = tokenizer.apply_chat_template(CONVERSATION[:end], add_generation_prompt=True, return_dict=True)
            assert whole[: len(prompt["input_ids"])] == prompt["input_ids"]


def test_tools_are_shown_once_beside_the_system_message(tokenizer: PreTrainedTokenizerBase) -> None:
    tool = {"type": "function", "function": {"name": "add", "description": "Adds.", "parameters": {}}}
    for messages in (CONVERSATION, CONVERSATION[1:]):
        rendered = tokenizer.apply_chat_template(messages, tools=[tool], tokenize=False)
        assert rendered.count("<tools>") == rendered.count("<|im_start|>system") == 1
        assert json.loads(rendered.split("<tools>\n")[1].split("\n</tools>")[0]) == tool


def test_unknown_role_is_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(Exception, match="The roles are"):
        tokenizer.apply_chat_template([{"role": "robot", "content": "x"}], tokenize=False)
