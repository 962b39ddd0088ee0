"""Rows from each format to each other: round trips, and what is lost is said."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from run_ftk import Ftk

from ftk.data.convert import DEFAULT_POLICY, CannotHold, Policy, convert
from ftk.data.formats import FORMATS
from ftk.data.formats.format import FormatError, Reading
from ftk.data.load import read_conversations
from ftk.data.settings import Source


def user(content: str) -> dict[str, Any]:
    return {"role": "user", "content": content}


def assistant(content: str, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **more}


def system(content: str) -> dict[str, Any]:
    return {"role": "system", "content": content}


def call(name: str, id: str | None = None, **arguments: Any) -> dict[str, Any]:
    function = {"type": "function", "function": {"name": name, "arguments": arguments}}
    return function if id is None else {"id": id, **function}


TOOL = {
    "type": "function",
    "function": {
        "name": "sum",
        "description": "Adds.",
        "parameters": {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]},
    },
}
ONE = [user("q “1”\n"), assistant(" a")]
SYSTEM = [system("s"), *ONE]
TURNS = [user("q1"), assistant("a1"), user("q2"), assistant("a2")]
UNLEARNED = [user("q1"), assistant("a1", train=False), user("q2"), assistant("a2")]
CALLS = [
    user("2+2"),
    assistant("", tool_calls=[call("sum", x=2), call("sum", x=3)]),
    {"role": "tool", "name": "sum", "content": '{"sum": 4}'},
    {"role": "tool", "name": "sum", "content": "five"},
    assistant("4"),
]
HOLD = {
    # What each format holds without any loss.
    "messages": [ONE, SYSTEM, TURNS, UNLEARNED, CALLS],
    "sharegpt": [ONE, SYSTEM, TURNS, UNLEARNED],
    "alpaca": [ONE, SYSTEM],
    "prompt_completion": [ONE, SYSTEM, UNLEARNED, CALLS],
    "context_question_answer": [ONE],
    "question_answer": [ONE],
    "gemini": [ONE, SYSTEM, TURNS, CALLS],
}
CASES = [(name, messages) for name, held in HOLD.items() for messages in held]


def converted(
    messages: list[dict[str, Any]], to: str, policy: Policy = DEFAULT_POLICY, tools: list[dict[str, Any]] | None = None
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    lost: Counter[str] = Counter()
    return convert(Reading(messages, tools or []), FORMATS[to], policy, lost), dict(lost)


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
        converted(messages, "alpaca")
    rows, lost = converted(messages, "alpaca", Policy(turns="split"))
    assert rows == [
        {"instruction": "q1", "input": "", "output": "a1", "system": "s"},
        {"instruction": "q2", "input": "", "output": "a2", "system": "s"},
    ]
    assert lost == {"rows split into one for each answer": 1, "new rows without the turns before them": 1}
    assert converted(messages, "alpaca", Policy(turns="drop")) == (
        [], {"rows left out: several turns, or none to learn": 1},
    )  # fmt: skip


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


SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")
KINDS = [
    (name, suffix)
    for name in FORMATS
    for suffix in SUFFIXES
    # Its lists and texts in one column are told apart by JSON alone.
    if (name, suffix) not in (("prompt_completion", ".csv"), ("prompt_completion", ".parquet"))
]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize(("name", "suffix"), KINDS)
def test_there_and_back_through_each_kind_of_file(name: str, suffix: str, tmp_path: Path, ftk_json: Ftk) -> None:
    rows = [row for one in HOLD[name] for row in converted(one, "messages", tools=[TOOL] if one is CALLS else [])[0]]
    input = write(tmp_path / "rows.jsonl", rows)
    there, back = tmp_path / f"there{suffix}", tmp_path / "back.jsonl"
    answer = ftk_json("data", "convert", input, "--to", name, "--out", there)
    assert (answer["exit_code"], answer["lost"]) == (0, {})
    assert answer["num_rows"] == answer["num_rows_written"] == len(rows)
    assert ftk_json("data", "convert", there, "--to", "messages", "--out", back)["source_format"] == name
    before, after = (read_conversations([Source(source=str(path))]) for path in (input, back))
    assert [(row.messages, row.tools) for row in before] == [(row.messages, row.tools) for row in after]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_lists_that_would_be_read_as_texts_are_refused(suffix: str, tmp_path: Path, ftk_json: Ftk) -> None:
    rows = [{"messages": ONE}, {"messages": SYSTEM}]
    out = tmp_path / f"out{suffix}"
    answer = ftk_json("data", "convert", write(tmp_path / "r.jsonl", rows), "--to", "prompt_completion", "--out", out)
    assert answer["exit_code"] == 2
    assert "column prompt has lists of messages" in answer["error"]["message"]
    assert [one.name for one in tmp_path.iterdir()] == ["r.jsonl"]


def test_columns_are_dropped_and_said_or_kept(tmp_path: Path, ftk_json: Ftk) -> None:
    input = write(tmp_path / "r.jsonl", [{"problem": "q", "solution": "a", "id": 1, "level": "hard"}] * 3)
    words = ("data", "convert", input, "--to", "alpaca", "--columns", "question=problem,answer=solution")
    answer = ftk_json(*words, "--out", tmp_path / "a.json")
    assert answer["lost"] == {"column id": 3, "column level": 3}
    assert json.loads((tmp_path / "a.json").read_text())[0] == {"instruction": "q", "input": "", "output": "a"}
    assert ftk_json(*words, "--out", tmp_path / "b.jsonl", "--keep-columns")["lost"] == {}
    row = json.loads((tmp_path / "b.jsonl").read_text().splitlines()[2])
    assert row == {"instruction": "q", "input": "", "output": "a", "id": 1, "level": "hard"}


def test_refused_rows_are_counted_before_it_stops(tmp_path: Path, ftk_json: Ftk) -> None:
    rows = [{"messages": one} for one in (ONE, TURNS, SYSTEM, TURNS)]
    answer = ftk_json(
        "data", "convert", write(tmp_path / "r.jsonl", rows), "--to", "question_answer", "--out", tmp_path / "o.jsonl"
    )
    assert (answer["exit_code"], answer["error"]["place"]) == (2, f"{tmp_path}/r.jsonl:2")
    assert "cannot hold 2 of 4 rows" in answer["error"]["message"]
    assert "2 with several turns" in answer["error"]["message"]
    assert "--turns split" in answer["error"]["message"]
    assert [one.name for one in tmp_path.iterdir()] == ["r.jsonl"]


def test_what_is_wrong_is_said_before_anything_is_written(tmp_path: Path, ftk_json: Ftk) -> None:
    input = write(tmp_path / "r.jsonl", [{"question": "q", "answer": "a"}])
    (tmp_path / "link.jsonl").symlink_to(input)
    (tmp_path / "there.jsonl").write_text("mine")

    def refused(*words: Any, to: str = "messages", out: str = "o.jsonl") -> str:
        answer = ftk_json("data", "convert", input, "--to", to, "--out", tmp_path / out, *words)
        assert answer["exit_code"] == 2
        return str(answer["error"]["message"])

    assert "there is no format alpacca to write" in refused(to="alpacca")
    assert "Did you mean alpaca?" in refused(to="alpacca")
    assert "there is no format pairs to write" in refused(to="pairs")
    assert "there is no format messages2" in refused("--format", "messages2")
    assert "a .txt file cannot be written" in refused(out="o.txt")
    assert "it is the input itself" in refused("--force", out="r.jsonl")
    assert "it is the input itself" in refused("--force", out="link.jsonl")
    assert "exists already. --force overwrites it" in refused(out="there.jsonl")
    assert (tmp_path / "there.jsonl").read_text() == "mine"
    assert "would be left out" in ftk_json(
        "data", "convert", write(tmp_path / "t.jsonl", [{"messages": TURNS}]), "--to", "alpaca", "--turns", "drop",
        "--out", tmp_path / "o.jsonl",
    )["error"]["message"]  # fmt: skip
    assert not (tmp_path / "o.jsonl").exists()
    answer = ftk_json("data", "convert", input, "--to", "messages", "--out", tmp_path / "there.jsonl", "--force")
    assert answer["exit_code"] == 0
    assert json.loads((tmp_path / "there.jsonl").read_text())["messages"][1] == assistant("a")


def test_half_a_character_is_said_with_its_row(tmp_path: Path, ftk_json: Ftk) -> None:
    input = tmp_path / "r.jsonl"
    input.write_text('{"question": "q", "answer": "a"}\n{"question": "q", "answer": "\\ud83d"}\n')
    for suffix in SUFFIXES:
        answer = ftk_json("data", "convert", input, "--to", "alpaca", "--out", tmp_path / f"o{suffix}")
        assert answer["exit_code"] == 2
        assert "lone surrogate" in answer["error"]["message"]
    assert [one.name for one in tmp_path.iterdir()] == ["r.jsonl"]


def test_a_folder_is_converted_to_a_file_elsewhere(tmp_path: Path, ftk_json: Ftk) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in "ab":
        write(folder / f"{name}.jsonl", [{"question": name, "answer": "a"}])
    answer = ftk_json("data", "convert", folder, "--to", "alpaca", "--out", folder / "c.jsonl")
    assert (answer["exit_code"], "be a part of it" in answer["error"]["message"]) == (2, True)
    assert ftk_json("data", "convert", folder, "--to", "alpaca", "--out", tmp_path / "new" / "c.csv")["num_rows"] == 2
