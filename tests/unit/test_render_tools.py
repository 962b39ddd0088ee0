"""Calls of tools, what they gave, and reasoning: rendered, learned, and never dropped unsaid."""

import json
from typing import Any

import pytest
from data_stand_in import assistant, byte_tokenizer, conversation, user

from ftk.core.errors import DataError
from ftk.core.types import Conversation
from ftk.data.render import Rendered, Renderer, renderer_for
from ftk.data.template_text import SHIPPED_FOLDER
from ftk.data.tool_calls import tool_fault

CHATML = (SHIPPED_FOLDER / "chatml.jinja").read_text()
SUM = {"type": "function", "function": {"name": "sum", "description": "Adds.", "parameters": {"type": "object"}}}
ADD = {"id": "a", "type": "function", "function": {"name": "sum", "arguments": {"x": 1, "y": 2}}}
MORE = {"id": "b", "type": "function", "function": {"name": "sum", "arguments": {"x": 3, "y": 4}}}


def tools() -> Renderer:
    return renderer_for(byte_tokenizer(), chat_template="chatml_tools")


def text(renderer: Renderer, rendered: Rendered) -> str:
    return str(renderer.tokenizer.decode(rendered.token_ids_L))


def learned(renderer: Renderer, row: Conversation, **how: Any) -> str:
    rendered = renderer.render(row, **how)
    return str(renderer.tokenizer.decode(rendered.token_ids_L[rendered.answers_L]))


CALLING = conversation(
    {"role": "system", "content": "be exact"},
    user("1+2 and 3+4?"),
    assistant("", tool_calls=[ADD, MORE]),
    {"role": "tool", "tool_call_id": "a", "content": "3"},
    {"role": "tool", "tool_call_id": "b", "content": "7"},
    assistant("3 and 7"),
    tools=[SUM],
)


def test_parallel_calls_and_their_results() -> None:
    renderer = tools()
    calls = [json.dumps(one["function"]) for one in (ADD, MORE)]
    wanted = "\n".join(f"<tool_call>\n{one}\n</tool_call>" for one in calls) + "<|im_end|>3 and 7<|im_end|>"
    assert learned(renderer, CALLING) == wanted
    whole = text(renderer, renderer.render(CALLING))
    assert json.dumps(SUM) in whole
    assert whole.index("be exact") < whole.index("<tools>") < whole.index("1+2 and 3+4?")
    assert whole.count("<tool_response>\n") == 2


def test_the_template_with_tools_is_chatml_where_there_are_none() -> None:
    row = conversation({"role": "system", "content": "s"}, user("a?"), assistant("b"), user("c?"), assistant("d"))
    plain = Renderer(byte_tokenizer(), CHATML)
    assert text(tools(), tools().render(row)) == text(plain, plain.render(row))


@pytest.mark.parametrize(
    ("messages", "has", "fault"),
    [
        ([user("q"), assistant("", tool_calls=[ADD])], [], "message 2 calls the tool sum, and the row has no tools"),
        ([user("q"), assistant("", tool_calls=[ADD])], ["sun"], "tools has sun. Did you mean sun?"),
        ([user("q"), {"role": "tool", "content": "3"}], ["sum"], "no message before it calls one"),
        (
            [user("q"), assistant("", tool_calls=[ADD]), {"role": "tool", "tool_call_id": "z", "content": "3"}],
            ["sum"],
            "answers the call 'z' of a tool",
        ),
    ],
)
def test_calls_that_do_not_add_up(messages: list[dict[str, Any]], has: list[str], fault: str) -> None:
    told = tool_fault(messages, [{"type": "function", "function": {"name": name}} for name in has])
    assert fault in (told or "")


def test_calls_that_add_up() -> None:
    assert tool_fault(CALLING.messages, CALLING.tools) is None
    # Some sets give results without an id, and schemas without the function around them.
    bare = [user("q"), assistant("", tool_calls=[ADD]), {"role": "tool", "name": "sum", "content": "3"}]
    assert tool_fault(bare, [{"name": "sum"}]) is None


def test_a_schema_that_the_template_leaves_out_is_an_error() -> None:
    template = "{%- if tools %}{{- 'tools: ' + (tools | length | string) }}{%- endif %}" + CHATML
    row = conversation(user("a"), assistant("b"), tools=[{"type": "function", "function": {"name": "lookup"}}], row=3)
    with pytest.raises(DataError, match=r"^rows.jsonl:3: the row has tools, and the chat template has no place"):
        Renderer(byte_tokenizer(), template).render(row)


@pytest.mark.parametrize("content", ["a", "assistant", "42"])
@pytest.mark.parametrize("role", ["system", "tool"])
def test_a_template_that_drops_a_role_is_an_error_whatever_the_content(role: str, content: str) -> None:
    """What is dropped may stand in the text by chance: `a` does in `assistant`."""
    marked = (SHIPPED_FOLDER / "chatml_tools.jinja").read_text()
    drops = f"{{%- set messages = messages | rejectattr('role', 'equalto', '{role}') | list %}}" + marked
    said = {"role": role, "content": content}
    row = [said, user("42 a?"), assistant("b 42")]
    if role == "tool":
        row = [user("42 a?"), assistant("", tool_calls=[ADD]), said, assistant("b 42")]
    with pytest.raises(DataError, match=rf"^rows.jsonl:5: .* leaves out or changes message \d \({role}\)"):
        Renderer(byte_tokenizer(), drops).render(conversation(*row, row=5, tools=[SUM] if role == "tool" else []))


def test_a_template_that_drops_an_earlier_answer_is_an_error_even_where_the_last_alone_is_learned() -> None:
    drops = "{%- set messages = messages[:1] + messages[2:] if messages | length > 2 else messages %}" + CHATML
    row = conversation(user("a?"), assistant("s"), user("c?"), assistant("d"))
    with pytest.raises(DataError, match=r"leaves out or changes message 2 \(assistant\)"):
        Renderer(byte_tokenizer(), drops).render(row, train_on="last")


THOUGHT = conversation(user("1+1?"), assistant("2", reasoning_content="one and one"))


def test_reasoning_is_learned_unless_it_weighs_less() -> None:
    renderer = tools()
    assert learned(renderer, THOUGHT) == "<think>\none and one\n</think>\n\n2<|im_end|>"
    half = renderer.render(THOUGHT, reasoning_weight=0.5)
    thought = half.weights_L == 0.5
    assert renderer.tokenizer.decode(half.token_ids_L[thought]) == "one and one"
    assert (half.answers_L & thought).sum() == thought.sum()
    # The marks around it stay learned: the model must know that it has thought enough.
    assert learned(renderer, THOUGHT, reasoning_weight=0.0) == "<think>\n\n</think>\n\n2<|im_end|>"


def test_reasoning_within_the_content_weighs_the_same() -> None:
    renderer = Renderer(byte_tokenizer(), CHATML)
    row = conversation(user("1+1?"), assistant("<think>one and one</think>2", weight=0.5, train=True))
    rendered = renderer.render(row, reasoning_weight=0.5, prompt_loss_weight=0.0)
    assert renderer.tokenizer.decode(rendered.token_ids_L[rendered.weights_L == 0.25]) == "one and one"
    assert renderer.tokenizer.decode(rendered.token_ids_L[rendered.weights_L == 0.5]) == "<think></think>2<|im_end|>"


def test_an_answer_in_the_words_of_its_reasoning_is_still_learned() -> None:
    """A template may drop the reasoning of earlier turns: what it says is then found in the answer alone."""
    drops = (
        "{%- for m in messages %}{{- '<|im_start|>' + m['role'] + '\n' }}"
        "{%- if loop.last and m['reasoning_content'] %}"
        "{{- '<think>' + m['reasoning_content'] + '</think>' }}{%- endif %}"
        "{{- m['content'] + '<|im_end|>\n' }}{%- endfor %}"
        "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
    )
    renderer = Renderer(byte_tokenizer(), drops)
    row = conversation(
        user("1+1?"), assistant("2", reasoning_content="2"), user("2+2?"), assistant("4", reasoning_content="4")
    )
    assert learned(renderer, row, reasoning_weight=0.0) == "2<|im_end|><think></think>4<|im_end|>"


def test_reasoning_that_the_template_has_no_place_for_is_an_error() -> None:
    with pytest.raises(DataError, match=r"message 2 has reasoning .* no place for it"):
        Renderer(byte_tokenizer(), CHATML).render(THOUGHT)
    knows_an_argument = "{%- if enable_thinking %}{{- 'x' }}{%- endif %}" + CHATML
    with pytest.raises(DataError, match="no place for it"):
        Renderer(byte_tokenizer(), knows_an_argument).render(THOUGHT)
