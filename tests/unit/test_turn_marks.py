"""What of a conversation is learned, and how much it weighs, as the rows say it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_stand_in import assistant, byte_tokenizer, conversation, user
from test_data_formats import read

from ftk.core.errors import DataError
from ftk.core.types import Example
from ftk.data.formats import FORMATS
from ftk.data.render import Renderer
from ftk.data.show import plain, stretches
from ftk.data.template_text import SHIPPED_FOLDER

CHATML = (SHIPPED_FOLDER / "chatml.jinja").read_text()
Q, A = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}


def messages_of(tmp_path: Path, *messages: dict[str, Any]) -> list[dict[str, Any]]:
    return list(read(tmp_path, {"messages": list(messages)})[0].messages)


@pytest.mark.parametrize(
    ("marks", "kept"),
    [
        ({}, {}),
        ({"weight": None, "train": None}, {}),
        ({"weight": 0}, {"train": False}),
        ({"weight": 1}, {"train": True}),
        ({"weight": 0.25}, {"train": True, "weight": 0.25}),
        ({"train": False}, {"train": False}),
        ({"train": True, "weight": 0.5}, {"train": True, "weight": 0.5}),
    ],
)
def test_marks_as_read(marks: dict[str, Any], kept: dict[str, Any], tmp_path: Path) -> None:
    _, answer, _, _ = messages_of(tmp_path, Q, {**A, **marks}, Q, A)
    assert answer == {**A, **kept}
    turn = {"from": "gpt", "value": "a", **marks}
    said = {"from": "human", "value": "q"}
    row = read(tmp_path, {"conversations": [said, turn, said, {"from": "gpt", "value": "a"}]})[0]
    assert row.messages[1] == {**A, **kept}
    written = FORMATS["messages"].writer.write(FORMATS["messages"].read({"messages": [Q, {**A, **marks}]}))
    assert FORMATS["messages"].read(written).messages[1] == {**A, **kept}


@pytest.mark.parametrize(
    ("message", "fault"),
    [
        ({**A, "weight": 1.5}, "message 2: weight is 1.5, expected a number from 0 to 1"),
        ({**A, "weight": "much"}, "message 2: weight is 'much'"),
        ({**A, "train": "yes"}, "message 2: train is 'yes', expected true or false"),
        ({**A, "train": False, "weight": 1}, "message 2: train is false and weight 1, which say different things"),
        ({**Q, "weight": 1}, "message 2: it is of user and is marked as learned; answers alone are"),
        ({**Q, "reasoning_content": "hm"}, "message 2: it is of user and has reasoning"),
        ({**A, "reasoning": "hm", "thinking": "ha"}, "message 2: its reasoning is said twice and differently"),
        ({**A, "reasoning_content": 3}, "message 2: its reasoning is int, expected text"),
    ],
)
def test_marks_that_say_nothing_are_errors_with_their_row(message: dict[str, Any], fault: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"rows.jsonl:1: .*{fault}"):
        messages_of(tmp_path, Q, message, Q, A)


def test_a_user_message_marked_as_not_learned_is_taken(tmp_path: Path) -> None:
    assert messages_of(tmp_path, {**Q, "weight": 0}, A) == [Q, A]


@pytest.mark.parametrize(
    "said",
    [
        {"reasoning_content": "hm"},
        {"reasoning": "hm"},
        {"thinking": "hm"},
        {"content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "a"}]},
        {"content": [{"type": "reasoning", "text": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "a"}]},
    ],
)
def test_reasoning_is_read_by_all_its_names(said: dict[str, Any], tmp_path: Path) -> None:
    assert messages_of(tmp_path, Q, {**A, **said})[1] == {**A, "reasoning_content": "hm"}


def test_the_weight_of_a_message_is_the_weight_of_its_tokens() -> None:
    renderer = Renderer(byte_tokenizer(), CHATML)
    row = conversation(user("a?"), assistant("b", train=True, weight=0.25), user("c?"), assistant("d"))
    rendered = renderer.render(row, prompt_loss_weight=0.5)
    weights = {text: rendered.weights_L[rendered.token_ids_L == ord_of(renderer, text)] for text in "bd"}
    assert {text: found.tolist() for text, found in weights.items()} == {"b": [0.25], "d": [1.0]}
    ends = rendered.token_ids_L == renderer.end_token_ids[0]
    np.testing.assert_array_equal(rendered.weights_L[ends], [0.5, 0.25, 0.5, 1.0])


def ord_of(renderer: Renderer, text: str) -> int:
    return int(renderer.tokenizer.convert_tokens_to_ids(text))


def test_train_on_marked_learns_those_alone() -> None:
    renderer = Renderer(byte_tokenizer(), CHATML)
    turns = [user("a?"), assistant("b"), user("c?"), assistant("d", train=True), user("e?"), assistant("f")]
    rendered = renderer.render(conversation(*turns), train_on="marked", prompt_loss_weight=0.0)
    assert renderer.tokenizer.decode(rendered.token_ids_L[rendered.answers_L]) == "d<|im_end|>"
    with pytest.raises(DataError, match=r"^rows.jsonl:8: the row has no answer to learn from: .*`marked`"):
        renderer.render(conversation(user("a?"), assistant("b"), row=8), train_on="marked")
    with pytest.raises(DataError, match="all of its answers are marked as not learned"):
        renderer.render(conversation(user("a?"), assistant("b", train=False)))


def test_history_of_alpaca_goes_before(tmp_path: Path) -> None:
    row = {"instruction": "c", "input": "", "output": "d", "system": "s", "history": [["a", "b"]]}
    said = [(one["role"], one["content"]) for one in read(tmp_path, row)[0].messages]
    assert said == [("system", "s"), ("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")]
    assert len(read(tmp_path, {**row, "history": []})[0].messages) == 3
    for history, fault in ((["a"], "turn 1 is no pair"), ({"a": "b"}, "history is dict")):
        with pytest.raises(DataError, match=f"rows.jsonl:1: .*{fault}"):
            list(read(tmp_path, {**row, "history": history}))


def test_a_system_message_where_it_is_missing_or_always(tmp_path: Path) -> None:
    own = [{"role": "system", "content": "own"}, Q, A]
    rows = [{"messages": [Q, A]}, {"messages": own}]
    for system, said in (
        ("given", ["given", "own"]),
        ({"text": "given"}, ["given", "own"]),
        ({"text": "given", "when": "always"}, ["given", "given"]),
    ):
        found = read(tmp_path, *rows, system=system)
        assert [row.messages[0]["content"] for row in found] == said
        assert [len(row.messages) for row in found] == [3, 3]


def test_a_preview_tells_the_weight_of_an_answer() -> None:
    renderer = Renderer(byte_tokenizer(), CHATML)
    row = conversation(user("a?"), assistant("b", train=True, weight=0.25), user("c?"), assistant("d"))
    rendered = renderer.render(row, prompt_loss_weight=0.5)
    example = Example(rendered.token_ids_L, rendered.weights_L, rendered.answers_L, 0)
    shown = plain(stretches(example, renderer.tokenizer))
    assert "⟦b<|im_end|>⟧×0.25" in shown
    assert "⟦d<|im_end|>⟧\n" in shown
