"""`ftk merge` of models with different tokenizers: rows are matched by token."""

import json
from pathlib import Path

import pytest
import torch
from merge_models import config, read_model, weights, write_model, write_tensors, write_tokenizer
from run_ftk import Ftk
from transformers import AutoTokenizer

LINEAR = """\
merge_method: linear
models:
  - {model: a, parameters: {weight: 1}}
  - {model: b, parameters: {weight: 3}}
"""
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
A = ["<unk>", "one", "two", "three"]
B = ["<unk>", "two", "one", "four"]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """a knows one, two, three; b knows two, one, four and the added five; both have a row too many."""
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / "a", 1, vocabulary=5)
    write_model(tmp_path / "b", 2, vocabulary=6)
    write_tokenizer(tmp_path / "a", A)
    write_tokenizer(tmp_path / "b", B, added=("five",))
    return tmp_path


@pytest.fixture
def merge(ftk_json: Ftk):
    def run(text: str):
        Path("merge.yaml").write_text(text)
        return ftk_json("merge", "merge.yaml", "--out", "out")

    return run


def test_the_base_keeps_its_rows_and_others_are_matched_to_them(merge):
    merge(f"{LINEAR}tokenizer_source: base\n")
    a, b, out = weights(1, vocabulary=5), weights(2, vocabulary=6), read_model(Path("out"))
    for name in (EMBEDDING, HEAD):
        assert out[name].shape == (5, 8)
        for row, of_b in ((0, 0), (1, 2), (2, 1)):
            torch.testing.assert_close(out[name][row], (a[name][row] + 3 * b[name][of_b]) / 4)
        # b lacks three, and takes the row of a, which is the base; of the padding too, where b has a token.
        torch.testing.assert_close(out[name][3], a[name][3])
        torch.testing.assert_close(out[name][4], a[name][4])
    assert Path("out/tokenizer.json").read_bytes() == Path("a/tokenizer.json").read_bytes()
    assert Path("out/config.json").read_bytes() == Path("a/config.json").read_bytes()


def test_the_tokenizer_of_another_model(merge):
    Path("b/generation_config.json").write_text('{"eos_token_id": 3}')
    write_tensors(
        Path("b"), weights(2, vocabulary=6), {**config(vocabulary=6), "eos_token_id": 3, "bos_token_id": None}
    )
    merge(f"{LINEAR}tokenizer_source: b\n")
    a, b, out = weights(1, vocabulary=5), weights(2, vocabulary=6), read_model(Path("out"))
    torch.testing.assert_close(out[EMBEDDING][1], (a[EMBEDDING][2] + 3 * b[EMBEDDING][1]) / 4)
    torch.testing.assert_close(out[EMBEDDING][4], b[EMBEDDING][4])
    found = json.loads(Path("out/config.json").read_text())
    assert (found["vocab_size"], found["eos_token_id"]) == (6, 3)
    assert Path("out/tokenizer.json").read_bytes() == Path("b/tokenizer.json").read_bytes()
    assert Path("out/generation_config.json").read_text() == '{"eos_token_id": 3}'


def test_the_union_has_the_tokens_of_all(merge):
    merge(f"{LINEAR}tokenizer: {{source: union, pad_to_multiple_of: 4}}\n")
    a, b, out = weights(1, vocabulary=5), weights(2, vocabulary=6), read_model(Path("out"))
    tokenizer = AutoTokenizer.from_pretrained("out")
    numbers = tokenizer.get_vocab()
    assert numbers == {"<unk>": 0, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5}
    assert tokenizer("one four five three")["input_ids"] == [1, 4, 5, 3]
    assert json.loads(Path("out/config.json").read_text())["vocab_size"] == 8
    for name in (EMBEDDING, HEAD):
        torch.testing.assert_close(out[name][1], (a[name][1] + 3 * b[name][2]) / 4)
        torch.testing.assert_close(out[name][3], a[name][3])
        torch.testing.assert_close(out[name][4], b[name][3])
        torch.testing.assert_close(out[name][5], b[name][4])
        torch.testing.assert_close(out[name][6], out[name][:6].mean(0), rtol=1e-5, atol=1e-5)
        assert torch.equal(out[name][6], out[name][7])


def test_a_token_that_two_of_three_have_is_their_mean_in_the_third(merge):
    write_model(Path("c"), 3, vocabulary=5)
    write_tokenizer(Path("c"), ["<unk>", "three", "one", "two"])
    merge(
        "merge_method: linear\nmodels: [{model: b}, {model: a}, {model: c}]\nparameters: {weight: 1}\n"
        "tokenizer_source: a\n"
    )
    a, b, c = (weights(seed, vocabulary=size)[EMBEDDING] for seed, size in ((1, 5), (2, 6), (3, 5)))
    assert b.shape == (6, 8)
    torch.testing.assert_close(read_model(Path("out"))[EMBEDDING][3], (a[3] + c[1]) / 2)


def test_rows_may_be_said(merge):
    merge(
        f"""{LINEAR}\
tokenizer:
  source: a
  tokens:
    one: {{source: b, force: true}}
    two: {{source: {{kind: zero}}, force: true}}
    three: {{source: {{kind: model_token, model: b, token: four}}}}
    new: {{source: {{kind: model_token, model: a, token_id: 0}}}}
"""
    )
    a, b, out = weights(1, vocabulary=5), weights(2, vocabulary=6), read_model(Path("out"))
    torch.testing.assert_close(out[EMBEDDING][1], b[EMBEDDING][2])
    assert not out[EMBEDDING][2].any()
    torch.testing.assert_close(out[EMBEDDING][3], (a[EMBEDDING][3] + 3 * b[EMBEDDING][3]) / 4)
    torch.testing.assert_close(out[EMBEDDING][4], a[EMBEDDING][0])
    assert AutoTokenizer.from_pretrained("out").get_vocab()["new"] == 4


def test_a_token_from_nowhere(merge):
    answer = merge(f"{LINEAR}tokenizer: {{source: a, tokens: {{new: {{}}}}}}\n")
    assert answer["exit_code"] == 2
    assert "'new' is in none of the models" in answer["error"]["message"]
    answer = merge(
        f"{LINEAR}tokenizer: {{source: a, tokens: {{new: {{source: {{kind: model_token, model: b, token: no}}}}}}}}\n"
    )
    assert answer["exit_code"] == 2
    assert "b has no token 'no'" in answer["error"]["message"]
    assert not Path("out").exists()


def test_tokenizers_that_contradict_each_other_ask_for_a_choice(merge):
    write_model(Path("b"), 2, vocabulary=5)
    answer = merge(LINEAR)
    assert answer["exit_code"] == 2
    assert "number 1 is 'one' in a and 'two' in b. Say which the output shall have" in answer["error"]["message"]


def test_tokenizers_of_which_one_knows_more_are_no_contradiction(merge):
    write_model(Path("b"), 2, vocabulary=5)
    write_tokenizer(Path("b"), A, added=("end",))
    assert merge(LINEAR)["exit_code"] == 0


def test_equal_tokenizers_are_matched_without_a_change(merge):
    write_model(Path("b"), 2, vocabulary=5)
    write_tokenizer(Path("b"), A)
    merge(f"{LINEAR}tokenizer_source: union\n")
    a, b, out = weights(1, vocabulary=5), weights(2, vocabulary=5), read_model(Path("out"))
    torch.testing.assert_close(out[EMBEDDING], (a[EMBEDDING] + 3 * b[EMBEDDING]) / 4)
    assert Path("out/tokenizer.json").read_bytes() == Path("a/tokenizer.json").read_bytes()


@pytest.mark.parametrize(("asked", "expected"), [("auto", "B {{ x }}"), ("'C {{ x }}'", "C {{ x }}"), ("plain", None)])
def test_chat_templates(merge, asked, expected):
    write_model(Path("b"), 2, vocabulary=5)
    write_model(Path("c"), 3, vocabulary=5)
    for name in "bc":
        write_tokenizer(Path(name), A)
        Path(name, "chat_template.jinja").write_text("B {{ x }}")
    settings = json.loads(Path("a/tokenizer_config.json").read_text())
    Path("a/tokenizer_config.json").write_text(json.dumps({**settings, "chat_template": "A {{ x }}"}))
    merge(
        "merge_method: linear\nmodels: [{model: a}, {model: b}, {model: c}]\nparameters: {weight: 1}\n"
        f"chat_template: {asked}\n"
    )
    template = AutoTokenizer.from_pretrained("out").chat_template
    assert template == expected or (expected is None and "A {{" not in template and "B {{" not in template)
