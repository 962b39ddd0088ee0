"""Rows from each format to each other: round trips, and what is lost is said."""

import json
from typing import Any

import pytest
from conversation_rows import CALLS, HOLD, ONE, SYSTEM, TOOL, TURNS, UNLEARNED, assistant, call, converted, system, user

from ftk.data.convert import CannotHold, Policy
from ftk.data.formats import FORMATS
from ftk.data.formats.format import FormatError, Reading

CASES = [(name, messages) for name, held in HOLD.items() for messages in held]


def test_every_format_is_written() -> None:
    assert set(HOLD) == set(FORMATS)
    assert all(format.writer for format in FORMATS.values())


@pytest.mark.parametrize(("name", "messages"), CASES)
def test_a_row_reads_back_as_what_was_written(name: str, messages: list[dict[str, Any]]) -> None:
    tools = [TOOL] if messages is CALLS else []
    (row,), lost = converted(messages, name, tools=tools)
    row = json.loads(json.dumps(row))
    assert FORMATS[name].read(row) == Reading(messages, tools)
    assert lost == {}


@pytest.mark.parametrize("messages", [ONE, SYSTEM, TURNS, UNLEARNED, CALLS])
@pytest.mark.parametrize("name", FORMATS)
def test_nothing_is_lost_unsaid(name: str, messages: list[dict[str, Any]]) -> None:
    """Whatever a format cannot hold is refused, or said."""
    try:
        rows, lost = converted(messages, name)
    except CannotHold:
        assert messages not in HOLD[name]
        return
    same = [FORMATS[name].read(row).messages for row in rows] == [messages]
    assert same == (not lost)


def test_gemini_as_its_documentation_has_it() -> None:
    (row,), _ = converted([system("Be short."), *CALLS], "gemini", tools=[TOOL])
    assert row == {
        "systemInstruction": {"role": "system", "parts": [{"text": "Be short."}]},
        "contents": [
            {"role": "user", "parts": [{"text": "2+2"}]},
            {
                "role": "model",
                "parts": [
                    {"functionCall": {"name": "sum", "args": {"x": 2}}},
                    {"functionCall": {"name": "sum", "args": {"x": 3}}},
                ],
            },
            {
                "role": "user",
                "parts": [
                    {"functionResponse": {"name": "sum", "response": {"sum": 4}}},
                    {"functionResponse": {"name": "sum", "response": {"output": "five"}}},
                ],
            },
            {"role": "model", "parts": [{"text": "4"}]},
        ],
        "tools": [
            {
                "functionDeclarations": [
                    {
                        "name": "sum",
                        "description": "Adds.",
                        "parameters": {"type": "OBJECT", "properties": {"x": {"type": "INTEGER"}}, "required": ["x"]},
                    }
                ]
            }
        ],
    }


def test_gemini_is_read_in_its_other_spellings() -> None:
    contents = [{"parts": [{"text": "q"}, {"text": "!"}]}, {"role": "model", "parts": [{"text": "a"}]}]
    row = {"contents": json.dumps(contents), "system_instruction": {"parts": {"text": "s"}}}
    assert FORMATS["gemini"].read(row).messages == [system("s"), user("q!"), assistant("a")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"role": "robot", "parts": [{"text": "x"}]}, "content 1: the role is 'robot'"),
        ({"role": "user", "parts": []}, "content 1: parts is not a list"),
        ({"role": "user", "parts": [{"inlineData": {}}]}, "its parts have inlineData, expected text"),
        ({"role": "model", "parts": [{"text": "hm", "thought": True}]}, "its parts have text, thought"),
        ({"role": "model", "parts": [{"functionCall": {}}]}, "a functionCall has no name"),
    ],
)
def test_what_is_no_content_of_gemini_is_an_error(content: dict[str, Any], message: str) -> None:
    with pytest.raises(FormatError, match=message):
        FORMATS["gemini"].read({"contents": [content]})


def test_the_name_of_a_tool_is_found_by_its_call() -> None:
    gave = {"role": "tool", "tool_call_id": "c1", "content": "4"}
    messages = [user("q"), assistant("", tool_calls=[call("sum", "c1")]), gave, assistant("4")]
    (row,), lost = converted(messages, "gemini")
    assert row["contents"][2]["parts"] == [{"functionResponse": {"name": "sum", "response": {"output": "4"}}}]
    assert lost == {"ids of calls of tools": 1}
    gave.pop("tool_call_id")
    with pytest.raises(CannotHold, match="does not say which"):
        converted(messages, "gemini")


def test_system_messages_are_folded_dropped_or_refused() -> None:
    rows, lost = converted(SYSTEM, "question_answer")
    assert rows == [{"question": "s\n\nq “1”\n", "answer": " a"}]
    assert lost == {"system messages put before the question": 1}
    rows, lost = converted(SYSTEM, "question_answer", Policy(system="drop"))
    assert rows == [{"question": "q “1”\n", "answer": " a"}]
    assert lost == {"system messages dropped": 1}
    with pytest.raises(CannotHold, match="system messages"):
        converted(SYSTEM, "question_answer", Policy(system="refuse"))
    # Gemini holds one at the beginning; another goes before what follows it.
    rows, _ = converted([*SYSTEM, system("t"), *ONE], "gemini")
    assert [part["parts"][0]["text"] for part in rows[0]["contents"]] == ["q “1”\n", " a", "t\n\nq “1”\n", " a"]


def test_several_turns_are_refused_split_or_left_out() -> None:
    messages = [system("s"), *TURNS]
    with pytest.raises(CannotHold, match="several turns"):
        converted(messages, "question_answer")
    rows, lost = converted(messages, "question_answer", Policy(turns="split"))
    assert rows == [{"question": "s\n\nq1", "answer": "a1"}, {"question": "s\n\nq2", "answer": "a2"}]
    assert lost["rows split into one for each answer"] == lost["new rows without the turns before them"] == 1
    assert converted(messages, "question_answer", Policy(turns="drop")) == (
        [], {"rows left out: several turns, or none to learn": 1},
    )  # fmt: skip


def test_alpaca_holds_pairs_of_turns_in_its_history() -> None:
    (row,), lost = converted([system("s"), *TURNS, user("q3"), assistant("a3")], "alpaca")
    history = [["q1", "a1"], ["q2", "a2"]]
    assert row == {"instruction": "q3", "input": "", "output": "a3", "system": "s", "history": history}
    assert lost == {}
    # It has no word for what is not learned.
    (row,), lost = converted(UNLEARNED, "alpaca")
    assert (row["history"], lost) == ([["q1", "a1"]], {"marks of answers that are not learned": 1})
    # What a system message within says goes before the question that follows it.
    (row,), _ = converted([*TURNS[:2], system("t"), *TURNS[2:]], "alpaca")
    assert (row["instruction"], row["history"]) == ("t\n\nq2", [["q1", "a1"]])


def test_alpaca_splits_refuses_or_leaves_out_what_is_no_pairs_of_turns() -> None:
    messages = [system("s"), *TURNS[:3], *TURNS[2:]]
    with pytest.raises(CannotHold, match="turns that are no pairs of question and answer"):
        converted(messages, "alpaca")
    rows, lost = converted([*messages[:4], user("q3")], "alpaca", Policy(turns="split"))
    assert rows == [{"instruction": "q1", "input": "", "output": "a1", "system": "s"}]
    assert lost == {"rows split into one for each answer": 1}
    assert converted(messages, "alpaca", Policy(turns="drop"))[0] == []
    with pytest.raises(CannotHold, match="none to learn"):
        converted(UNLEARNED[:2], "alpaca")


def test_split_with_its_history_teaches_each_answer_once() -> None:
    """prompt_completion shows what stands in the prompt and does not learn it."""
    with pytest.raises(CannotHold, match="several answers"):
        converted(TURNS, "prompt_completion")
    rows, lost = converted(TURNS, "prompt_completion", Policy(turns="split"))
    read = [FORMATS["prompt_completion"].read(row).messages for row in rows]
    assert read == [TURNS[:2], UNLEARNED]
    assert lost == {"rows split into one for each answer": 1}
    assert rows[0] == {"prompt": "q1", "completion": "a1"}


def test_an_answer_that_is_not_learned_gets_no_row() -> None:
    rows, lost = converted(UNLEARNED, "question_answer", Policy(turns="split"))
    assert rows == [{"question": "q2", "answer": "a2"}]
    assert lost["new rows without the turns before them"] == 1


def test_tools_are_refused_or_left_out() -> None:
    with pytest.raises(CannotHold, match="calls of tools"):
        converted(CALLS, "alpaca")
    assert converted(CALLS, "alpaca", Policy(tools="drop"), [TOOL]) == ([], {"rows left out: they call tools": 1})
    with pytest.raises(CannotHold, match="schemas of tools"):
        converted(ONE, "alpaca", tools=[TOOL])
    rows, lost = converted(ONE, "alpaca", Policy(tools="drop"), [TOOL])
    assert (len(rows), lost) == (1, {"schemas of tools": 1})
    with pytest.raises(CannotHold, match="both text and calls"):
        converted([user("q"), assistant("Let me see.", tool_calls=[call("sum")])], "sharegpt")


def test_marks_and_names_that_a_format_has_no_word_for_are_said() -> None:
    named = [{**user("q"), "name": "Ann"}, *UNLEARNED[1:]]
    assert converted(named, "gemini")[1] == {"marks of answers that are not learned": 1, "field name of messages": 1}
    assert converted(named, "sharegpt")[1] == {"field name of messages": 1}
    assert converted(named, "messages")[1] == {}
