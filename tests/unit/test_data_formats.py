"""Row formats: what each reads, and what it refuses."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from ftk.core.errors import DataError, RecipeError
from ftk.data.formats import FORMATS, format_of
from ftk.data.load import read_conversations
from ftk.data.settings import Source

USER_ASSISTANT = ({"role": "user", "content": "q"}, {"role": "assistant", "content": "a"})
ROWS: dict[str, list[dict[str, Any]]] = {
    "messages": [
        {"messages": list(USER_ASSISTANT)},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "q"}]}, USER_ASSISTANT[1]]},
        {"messages": json.dumps(USER_ASSISTANT)},
    ],
    "sharegpt": [
        {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
        {"conversations": list(USER_ASSISTANT)},
    ],
    "alpaca": [{"instruction": "q", "input": "", "output": "a"}, {"instruction": "q", "output": "a"}],
    "prompt_completion": [
        {"prompt": "q", "completion": "a"},
        {"prompt": [USER_ASSISTANT[0]], "completion": [USER_ASSISTANT[1]]},
    ],
    "context_question_answer": [
        {"context": "", "question": "q", "answer": "a"},
        {"context": [], "question": "q", "answer": "a"},
    ],
    "question_answer": [{"question": "q", "answer": "a"}],
    "gemini": [{"contents": [{"role": "user", "parts": [{"text": "q"}]}, {"role": "model", "parts": [{"text": "a"}]}]}],
}
CASES = [(name, row) for name, rows in ROWS.items() for row in rows]


def read(tmp_path: Path, *rows: Any, **source: Any) -> Any:
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_conversations([Source(source=str(file), **source)])


@pytest.mark.parametrize(("name", "row"), CASES)
def test_each_format_is_found_from_its_columns_and_read(name: str, row: dict[str, Any], tmp_path: Path) -> None:
    rows = read(tmp_path, row)
    assert rows[0].messages == USER_ASSISTANT
    assert rows[0].columns == row
    assert (rows.taken[0].format, rows.taken[0].found, rows.taken[0].num_rows) == (name, True, 1)
    assert f"format {name} (found from the columns)" in str(rows.taken[0])


def test_every_format_has_a_case() -> None:
    assert set(ROWS) == set(FORMATS)


def test_no_format_for_unknown_columns() -> None:
    assert format_of(["text"], FORMATS) is None


def test_columns_are_mapped(tmp_path: Path) -> None:
    rows = read(
        tmp_path,
        {"problem": "q", "solution": "a"},
        format="question_answer",
        columns={"question": "problem", "answer": "solution"},
    )
    assert rows[0].messages == USER_ASSISTANT
    assert not rows.taken[0].found


def test_a_mapping_is_enough_to_find_the_format(tmp_path: Path) -> None:
    rows = read(tmp_path, {"problem": "q", "solution": "a"}, columns={"question": "problem", "answer": "solution"})
    assert rows[0].messages == USER_ASSISTANT


def test_an_input_follows_the_instruction(tmp_path: Path) -> None:
    rows = read(tmp_path, {"instruction": "Add.", "input": "1 2", "output": "3"})
    assert rows[0].messages[0]["content"] == "Add.\n\n1 2"


def test_a_system_message_is_put_before_rows_that_have_none(tmp_path: Path) -> None:
    own = [{"role": "system", "content": "own"}, *USER_ASSISTANT]
    rows = read(tmp_path, {"messages": list(USER_ASSISTANT)}, {"messages": own}, system="given")
    assert [row.messages[0]["content"] for row in rows] == ["given", "own"]


def test_calls_of_tools_as_openai_writes_them(tmp_path: Path) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
    row = {
        "messages": [
            {"role": "user", "content": "q"},
            {"role": "assistant", "content": None, "tool_calls": [call], "weight": 0},
            {"role": "tool", "tool_call_id": "c", "content": "1"},
            {"role": "assistant", "content": "a"},
        ],
        "tools": [{"type": "function", "function": {"name": "f"}}],
    }
    (conversation,) = read(tmp_path, row)
    first = conversation.messages[1]
    # Templates print arguments by `tojson`: JSON text would be quoted twice.
    assert first["tool_calls"][0]["function"] == {"name": "f", "arguments": {"x": 1}}
    assert (first["content"], first["train"]) == ("", False)
    assert conversation.messages[2]["tool_call_id"] == "c"
    assert conversation.tools == ({"type": "function", "function": {"name": "f"}},)


def test_answers_within_a_prompt_are_not_learned(tmp_path: Path) -> None:
    row = {"prompt": [*USER_ASSISTANT, USER_ASSISTANT[0]], "completion": [USER_ASSISTANT[1]]}
    (conversation,) = read(tmp_path, row)
    assert [message.get("train", True) for message in conversation.messages] == [True, False, True, True]


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "own_rows.py").write_text(
        "def nested(row):\n"
        "    one = row['instances'][0]\n"
        "    return {'messages': [{'role': 'user', 'content': row['instruction'] + one['input']},\n"
        "                         {'role': 'assistant', 'content': one['output']}]}\n"
        "def broken(row):\n"
        "    return row['nothing']\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_rows", raising=False)
    return "own_rows"


def test_rows_read_by_a_function_of_the_users_own(own_module: str, tmp_path: Path) -> None:
    row = {"instruction": "q", "instances": [{"input": "", "output": "a"}]}
    assert read(tmp_path, row, format=f"{own_module}:nested")[0].messages == USER_ASSISTANT


def test_a_function_that_fails_is_an_error_with_the_line(own_module: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"rows.jsonl:1: .* own_rows:broken fails on it: KeyError"):
        list(read(tmp_path, {"x": 1}, format=f"{own_module}:broken"))
    with pytest.raises(RecipeError, match="Did you mean own_rows:nested"):
        list(read(tmp_path, {"x": 1}, format=f"{own_module}:nestd"))


def test_nested_seed_tasks_of_alpaca(own_module: str) -> None:
    file = Path(__file__).parents[3] / "shared" / "data" / "alpaca_seed_tasks.jsonl"
    if not file.exists():
        pytest.skip("../shared/data is not here")
    with pytest.raises(DataError, match=r"columns id, name, instruction, instances, .* of no known format"):
        list(read_conversations([Source(source=str(file))]))
    rows = read_conversations([Source(source=str(file), format=f"{own_module}:nested")])
    assert len(rows) == 175


BROKEN = [
    ({"messages": []}, "not a list with at least one message"),
    ({"messages": [{"role": "robot", "content": "x"}]}, "message 1: the role is 'robot', expected one of system"),
    ({"messages": [{"role": "user", "content": "q"}]}, "no answer: its messages are of user"),
    ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "expected text alone"),
    ({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": None}]}, "content is missing"),
    ({"messages": "not json"}, "expected a list or its JSON text"),
    ({"conversations": [{"from": "robot", "value": "x"}]}, "turn 1: it is from 'robot'"),
    ({"question": "q", "answer": None}, "the answer is missing, expected text"),
    ({"question": "q", "answer": ["a"]}, "the answer is list, expected text"),
    ({"question": "q", "answer": "  \n"}, "the answer is empty"),
]


@pytest.mark.parametrize(("row", "message"), BROKEN)
def test_a_row_that_does_not_read_is_an_error_with_its_line(row: dict[str, Any], message: str, tmp_path: Path) -> None:
    good = {"messages": list(USER_ASSISTANT)} if "messages" in row else {}
    good = {"conversations": ROWS["sharegpt"][0]["conversations"]} if "conversations" in row else good
    with pytest.raises(DataError, match=rf"rows.jsonl:2: .*{message}"):
        list(read(tmp_path, good or {"question": "q", "answer": "a"}, row))
