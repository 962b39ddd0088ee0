"""Tokens, loss weights and the checks of single rows."""

import numpy as np
import pytest
from data_stand_in import CHAT_TOKENS, assistant, byte_tokenizer, conversation, user

from ftk.core.errors import DataError
from ftk.data.render import Rendered, Renderer, renderer_for
from ftk.data.template_text import SHIPPED_FOLDER, shipped_templates

CHATML = (SHIPPED_FOLDER / "chatml.jinja").read_text()
UNMARKED = CHATML.replace("{%- generation %}", "").replace("{%- endgeneration %}", "")
TWO_TURNS = conversation(user("a?"), assistant("b"), user("c?"), assistant("d"))
TOKENS = {"llama3": ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")}


def chatml(template: str = CHATML, **how: object) -> Renderer:
    return Renderer(byte_tokenizer(**how), template)


def text_of(renderer: Renderer, rendered: Rendered, where: np.ndarray) -> str:
    return str(renderer.tokenizer.decode(rendered.token_ids_L[where]))


@pytest.mark.parametrize("name", shipped_templates())
def test_end_of_turn_untrained(name: str) -> None:
    renderer = renderer_for(byte_tokenizer(tokens=TOKENS.get(name, CHAT_TOKENS)), chat_template=name)
    rendered = renderer.render(TWO_TURNS)
    ends = rendered.token_ids_L == renderer.end_token_ids[0]
    assert rendered.weights_L[ends & rendered.answers_L].tolist() == [1.0, 1.0]
    end = renderer.tokenizer.decode(renderer.end_token_ids)
    assert text_of(renderer, rendered, rendered.answers_L) == f"b{end}d{end}"


@pytest.mark.parametrize("template", [CHATML, UNMARKED], ids=["marked", "unmarked"])
def test_weights_are_one_on_answers_the_fraction_on_prompts_and_zero_on_the_first_token(template: str) -> None:
    renderer = chatml(template)
    rendered = renderer.render(TWO_TURNS, prompt_loss_weight=0.25)
    assert rendered.weights_L[0] == 0.0
    assert set(rendered.weights_L[1:][rendered.answers_L[1:]]) == {1.0}
    assert set(rendered.weights_L[1:][~rendered.answers_L[1:]]) == {0.25}
    prompt = text_of(renderer, rendered, ~rendered.answers_L)
    assert prompt == (
        "<|im_start|>user\na?<|im_end|>\n<|im_start|>assistant\n\n<|im_start|>user\nc?<|im_end|>\n<|im_start|>assistant\n\n"
    )


def test_assistant_mask_from_markers_equals_that_from_incremental_rendering() -> None:
    marked, unmarked = chatml(CHATML).render(TWO_TURNS), chatml(UNMARKED).render(TWO_TURNS)
    for one, other in zip(marked, unmarked, strict=True):
        np.testing.assert_array_equal(one, other)


def test_assistant_mask_equals_that_of_transformers() -> None:
    renderer = chatml()
    rendered = renderer.render(TWO_TURNS)
    theirs = renderer.tokenizer.apply_chat_template(
        list(TWO_TURNS.messages), chat_template=CHATML, return_dict=True, return_assistant_tokens_mask=True
    )
    assert theirs["input_ids"] == rendered.token_ids_L.tolist()
    assert theirs["assistant_masks"] == rendered.answers_L.tolist()


def test_end_of_turn_is_learned_where_markers_leave_it_out() -> None:
    outside = CHATML.replace(
        "{{- message['content'] + '<|im_end|>' }}\n        {%- endgeneration %}",
        "{{- message['content'] }}\n        {%- endgeneration %}\n        {{- '<|im_end|>' }}",
    )
    assert outside != CHATML
    renderer = chatml(outside)
    rendered = renderer.render(TWO_TURNS)
    assert text_of(renderer, rendered, rendered.answers_L) == "b<|im_end|>d<|im_end|>"


def test_a_token_that_reaches_into_the_answer_belongs_to_it() -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocab = {"<e>": 0, "a": 1, ":": 2, "Ġ": 3, "b": 4, "Ġb": 5, ":Ġ": 6}
    backend = Tokenizer(models.BPE(vocab=vocab, merges=[("Ġ", "b")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<e>"])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<e>")
    template = "{% for m in messages %}{{ m.content + (eos_token if m.role == 'assistant' else ': ') }}{% endfor %}"
    rendered = Renderer(tokenizer, template).render(conversation(user("a"), assistant("b")))
    # Alone the prompt is "a", ":", " "; in the whole text the space is joined to the answer.
    assert tokenizer.convert_ids_to_tokens(rendered.token_ids_L) == ["a", ":", "Ġb", "<e>"]
    assert rendered.answers_L.tolist() == [False, False, True, True]


def test_pad_is_eos() -> None:
    renderer = chatml(pad="<|im_end|>")
    assert renderer.tokenizer.pad_token_id == renderer.end_token_ids[0]
    rendered = renderer.render(TWO_TURNS)
    ends = (rendered.token_ids_L == renderer.end_token_ids[0]) & rendered.answers_L
    assert rendered.weights_L[ends].tolist() == [1.0, 1.0]


@pytest.mark.parametrize("by_template", [True, False])
@pytest.mark.parametrize("by_tokenizer", [True, False])
def test_doubled_bos(by_template: bool, by_tokenizer: bool) -> None:
    template = ("{{- bos_token }}" if by_template else "") + CHATML
    renderer = chatml(template, adds_bos=by_tokenizer)
    expected = int(by_template or by_tokenizer)
    for token_ids in (renderer.render(TWO_TURNS).token_ids_L, np.array(renderer.render_prompt(TWO_TURNS))):
        assert (token_ids == renderer.bos_token_id).sum() == expected
        assert (token_ids[0] == renderer.bos_token_id) == bool(expected)


def test_a_template_that_doubles_the_bos_is_an_error_with_the_row() -> None:
    with pytest.raises(DataError, match=r"^rows.jsonl:7: .* two BOS"):
        chatml("{{- bos_token + bos_token }}" + CHATML).render(conversation(user("a"), assistant("b"), row=7))


def test_a_bos_in_the_text_of_a_row_is_an_error() -> None:
    with pytest.raises(DataError, match=r"^rows.jsonl:1: there is a BOS token within a turn"):
        chatml().render(conversation(user("a <s> b"), assistant("b")))


def test_a_template_that_begins_each_turn_with_bos_is_taken() -> None:
    template = (
        "{% for m in messages %}{{ bos_token + m.content + '<|im_end|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ bos_token }}{% endif %}"
    )
    renderer = chatml(template)
    rendered = renderer.render(TWO_TURNS)
    assert text_of(renderer, rendered, rendered.answers_L) == "b<|im_end|>d<|im_end|>"


def test_train_on_last_leaves_earlier_answers_to_the_prompt() -> None:
    renderer = chatml()
    rendered = renderer.render(TWO_TURNS, train_on="last", prompt_loss_weight=0.5)
    assert text_of(renderer, rendered, rendered.answers_L) == "d<|im_end|>"
    assert text_of(renderer, rendered, rendered.weights_L == 1) == "d<|im_end|>"
    assert (rendered.weights_L == 0).sum() == 1


def test_an_answer_marked_as_not_to_be_learned_weighs_nothing() -> None:
    renderer = chatml()
    row = conversation(user("a?"), assistant("wrong", train=False), user("c?"), assistant("d"))
    rendered = renderer.render(row, prompt_loss_weight=0.5)
    assert text_of(renderer, rendered, rendered.answers_L) == "d<|im_end|>"
    assert "wrong<|im_end|>" in text_of(renderer, rendered, rendered.weights_L == 0)


def test_a_template_without_an_end_of_turn_is_an_error() -> None:
    template = "{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}"
    with pytest.raises(DataError, match="never learn to stop"):
        chatml(template).render(TWO_TURNS)


def test_an_end_of_turn_that_the_tokenizer_does_not_know_is_an_error() -> None:
    with pytest.raises(DataError, match="no one token for that"):
        chatml(tokens=()).render(TWO_TURNS)


def test_a_template_that_cannot_open_an_answer_is_understood() -> None:
    without = UNMARKED[: UNMARKED.index("{%- if add_generation_prompt")]
    renderer = chatml(without)
    rendered = renderer.render(TWO_TURNS)
    assert text_of(renderer, rendered, rendered.answers_L) == "b<|im_end|>d<|im_end|>"
    assert renderer.tokenizer.decode(renderer.render_prompt(TWO_TURNS)).endswith("<|im_start|>assistant\n")


def test_a_template_that_renders_differently_in_pieces_is_an_error_with_the_row() -> None:
    numbered = UNMARKED.replace("'<|im_start|>' + message['role']", "'<|im_start|>' + messages | length | string")
    with pytest.raises(DataError, match=r"^rows.jsonl:9: the chat template renders this row differently in pieces"):
        chatml(numbered).render(conversation(user("a"), assistant("b"), row=9))


def test_a_template_that_fails_is_an_error_with_its_own_words() -> None:
    template = UNMARKED + "{% if messages[0].role == 'system' %}{{ raise_exception('no system here') }}{% endif %}"
    row = conversation({"role": "system", "content": "s"}, user("a"), assistant("b"), row=4)
    with pytest.raises(DataError, match=r"^rows.jsonl:4: the chat template fails on this row: no system here"):
        chatml(template).render(row)


def test_a_template_that_drops_a_message_is_an_error() -> None:
    template = "{%- set messages = messages | rejectattr('role', 'equalto', 'system') | list %}" + UNMARKED
    row = conversation({"role": "system", "content": "be brief"}, user("a"), assistant("b"))
    with pytest.raises(DataError, match=r"leaves out or changes message 1 \(system\)"):
        chatml(template).render(row)


def test_tools_that_the_template_has_no_place_for_are_an_error() -> None:
    row = conversation(user("a"), assistant("b"), tools=[{"type": "function", "function": {"name": "f"}}])
    with pytest.raises(DataError, match="no place for them"):
        chatml().render(row)


def test_a_conversation_that_begins_with_an_answer_is_an_error() -> None:
    with pytest.raises(DataError, match="begins with an answer"):
        chatml().render(conversation(assistant("b"), user("a"), assistant("c")))


def test_the_prompt_is_the_beginning_of_the_whole_row() -> None:
    renderer = chatml()
    rendered = renderer.render(TWO_TURNS)
    prompt = renderer.render_prompt(TWO_TURNS)
    last = int(np.flatnonzero(rendered.answers_L)[-2])
    assert prompt == rendered.token_ids_L[:last].tolist()
    assert renderer.reference(TWO_TURNS) == "d"


def test_shots_go_between_the_system_message_and_the_question() -> None:
    renderer = chatml()
    system = {"role": "system", "content": "s"}
    asked = conversation(system, user("q"), assistant("never shown"))
    shot = conversation({"role": "system", "content": "other"}, user("q1"), assistant("a1"))
    text = renderer.tokenizer.decode(renderer.render_prompt(asked, shots=[shot]))
    turns = ["system\ns", "user\nq1", "assistant\na1", "user\nq"]
    assert text == "".join(f"<|im_start|>{turn}<|im_end|>\n" for turn in turns) + "<|im_start|>assistant\n"


def test_rows_render_the_same_alone_and_together() -> None:
    renderer = chatml()
    rows = [TWO_TURNS, conversation(user("é 漢字 🙂"), assistant("🙂 ünï")), conversation(user("x"), assistant("y"))]
    for row, together in zip(rows, renderer.render_many(rows), strict=True):
        alone = renderer.render(row)
        for one, other in zip(alone, together, strict=True):
            np.testing.assert_array_equal(one, other)
    emoji = renderer.render(rows[1])
    assert text_of(renderer, emoji, emoji.answers_L) == "🙂 ünï<|im_end|>"


def test_a_name_that_is_no_template_gives_the_nearest() -> None:
    with pytest.raises(DataError, match="Did you mean chatml"):
        renderer_for(byte_tokenizer(), chat_template="chatlm")
    with pytest.raises(DataError, match="no chat template of its own"):
        renderer_for(byte_tokenizer(), chat_template=None)
