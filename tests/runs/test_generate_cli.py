"""`ftk generate` and `ftk chat` as they are typed."""

import io
import sys

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from ftk.cli import chat as chat_module
from ftk.cli.app import main
from ftk.core.errors import DataError
from ftk.runs.generate import Reply, Sampling, Speaker


@pytest.fixture
def typed(monkeypatch):
    """Put text on standard input."""

    def put(text: str | bytes) -> None:
        raw = text if isinstance(text, bytes) else text.encode()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw), encoding="utf-8"))

    return put


def expected_answer(model_folder, messages, *, max_new_tokens):
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    model = AutoModelForCausalLM.from_pretrained(model_folder).eval()
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    input_ids = torch.tensor([tokenizer(prompt, add_special_tokens=False)["input_ids"]])
    output = model.generate(
        input_ids,
        attention_mask=torch.ones_like(input_ids),
        do_sample=False,
        max_new_tokens=max_new_tokens,
        eos_token_id=[tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|im_end|>")],
        pad_token_id=0,
    )
    return tokenizer.decode(output[0, input_ids.shape[1] :], skip_special_tokens=True)


def test_generate_answers_by_the_template(ftk_json, model_folder):
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who?"}]
    found = ftk_json("generate", model_folder, "Who?", "--system", "Be brief.", "--max-new-tokens", 12)
    assert found["exit_code"] == 0
    assert found["text"] == expected_answer(model_folder, messages, max_new_tokens=12)
    assert (found["num_tokens"], found["finish_reason"]) == (12, "length") or found["finish_reason"] == "stop"
    assert found["seconds"] > 0


def test_what_is_streamed_is_the_answer(model_folder, capfd):
    with pytest.raises(SystemExit) as end:
        main(["generate", str(model_folder), "Who?", "--max-new-tokens", "12"])
    assert end.value.code == 0
    answer = expected_answer(model_folder, [{"role": "user", "content": "Who?"}], max_new_tokens=12)
    assert capfd.readouterr().out == f"{answer}\n"


def test_generate_reads_standard_input(ftk_json, model_folder, typed):
    typed("Wer — 雪?")
    found = ftk_json("generate", model_folder, "-", "--max-new-tokens", 5)
    messages = [{"role": "user", "content": "Wer — 雪?"}]
    assert found["text"] == expected_answer(model_folder, messages, max_new_tokens=5)
    typed(b"\xff")
    found = ftk_json("generate", model_folder, "-")
    assert found["exit_code"] == 2
    assert "UTF-8" in found["error"]["message"]


def test_raw_goes_on_from_the_text(ftk_json, model_folder):
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    model = AutoModelForCausalLM.from_pretrained(model_folder).eval()
    input_ids = torch.tensor([tokenizer("def add(")["input_ids"]])
    output = model.generate(
        input_ids, attention_mask=torch.ones_like(input_ids), do_sample=False, max_new_tokens=6, pad_token_id=0
    )
    found = ftk_json("generate", model_folder, "def add(", "--raw", "--max-new-tokens", 6)
    assert found["text"] == tokenizer.decode(output[0, input_ids.shape[1] :], skip_special_tokens=True)


def test_draws_follow_the_seed(ftk_json, model_folder):
    words = ("generate", model_folder, "Who?", "--temperature", 1.5, "--max-new-tokens", 8)
    first, same, other = (ftk_json(*words, "--seed", seed)["text"] for seed in (1, 1, 2))
    assert first == same != other


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["MODEL", "  "], "the prompt is empty"),
        (["MODEL", "hi", "--top-p", "0"], "top-p is 0.0"),
        (["MODEL", "hi", "--temperature", "-1"], "temperature is -1.0"),
        (["MODEL", "hi", "--max-new-tokens", "0"], "max-new-tokens is 0"),
        (["MODEL", "hi", "--seed", "-3"], "the seed is -3"),
        (["MODEL", "hi", "--raw", "--system", "x"], "--raw uses no template"),
        (["MODEL", "hi", "--chat-template", "chatmll"], "Did you mean chatml"),
        (["MODEL", "word " * 300], "256 positions"),
        (["missing-model", "hi"], "missing-model"),
        (["MODEL", "word " * 300, "--raw"], "256 positions"),
    ],
)
def test_what_is_wrong_is_said_in_one_message(ftk_json, model_folder, words, message, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    found = ftk_json("generate", *[model_folder if word == "MODEL" else word for word in words])
    assert found["exit_code"] == found["error"]["exit_code"] == 2
    assert message in found["error"]["message"]
    assert "Traceback" not in found["stderr"]


def test_a_model_without_a_template_says_what_to_do(ftk_json, model_folder, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    tokenizer.chat_template = None
    AutoModelForCausalLM.from_pretrained(model_folder).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    found = ftk_json("generate", tmp_path, "hi")
    assert found["exit_code"] == 2
    assert "--chat-template" in found["error"]["message"]
    assert "--raw" in found["error"]["message"]
    assert ftk_json("generate", tmp_path, "hi", "--chat-template", "chatml", "--max-new-tokens", 2)["exit_code"] == 0
    assert ftk_json("generate", tmp_path, "hi", "--raw", "--max-new-tokens", 2)["exit_code"] == 0


def test_chat_takes_lines_and_remembers(ftk_json, model_folder, typed):
    typed("Who?\n\n/nope\nAnd why?\n/exit\nnever asked\n")
    found = ftk_json("chat", model_folder, "--max-new-tokens", 6, "--temperature", 0)
    assert found["exit_code"] == 0
    messages = found["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant"] * 2
    assert messages[1]["content"] == expected_answer(model_folder, messages[:1], max_new_tokens=6)
    assert messages[3]["content"] == expected_answer(model_folder, messages[:3], max_new_tokens=6)
    assert "There is no command /nope" in found["stderr"]


def test_chat_forgets_when_told_to(ftk_json, model_folder, typed):
    typed("One?\n/reset\nTwo?")
    found = ftk_json("chat", model_folder, "--system", "Be brief.", "--max-new-tokens", 3)
    assert [message["content"] for message in found["messages"][:2]] == ["Be brief.", "Two?"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Interrupted:
    """A speaker that is stopped at its first answer, and has no room for a third."""

    def __init__(self) -> None:
        self.seen: list[list[str]] = []

    def answer(self, messages, sampling, *, on_text):
        self.seen.append([message["content"] for message in messages])
        if len(self.seen) == 1:
            raise KeyboardInterrupt
        if len(self.seen) == 3:
            raise DataError("the conversation has 300 tokens")
        on_text("yes")
        return Reply("yes", 1, 0.1, "stop")


def test_ctrl_c_stops_an_answer_and_not_the_chat(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", Terminal("a\nb\nc\n"))
    speaker = Interrupted()
    messages = chat_module._talk(speaker, Sampling(), [])
    assert speaker.seen == [["a"], ["b"], ["b", "yes", "c"]], "what was stopped is not remembered"
    assert [message["content"] for message in messages] == ["b", "yes"]
    captured = capsys.readouterr()
    assert captured.out == "yes\n"
    assert "(stopped)" in captured.err
    assert "300 tokens" in captured.err


def test_each_turn_draws_anew(model_folder):
    speaker = Speaker(str(model_folder))
    sampling = Sampling(temperature=1.5, max_new_tokens=8)
    question = [{"role": "user", "content": "Who?"}]
    first = speaker.answer(question, sampling).text
    assert first == speaker.answer(question, sampling).text
    assert first != speaker.answer(question, Sampling(temperature=1.5, max_new_tokens=8, seed=1)).text
