"""Preference data that is refused, with its file and row."""

from pathlib import Path
from typing import Any

import pytest
from comparison_rows import BAD, GOOD, PAIRS, USER, read

from ftk.core.errors import DataError
from ftk.data.formats import PREFERENCE_FORMATS
from ftk.data.load import read_conversations
from ftk.data.settings import Source

CALL = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}
BROKEN: list[tuple[dict[str, Any], str]] = [
    ({"prompt": "q", "chosen": "a", "rejected": "a"}, "chosen and rejected are equal"),
    ({"prompt": "q", "chosen": [GOOD], "rejected": [{**GOOD, "weight": 0}]}, "chosen and rejected are equal"),
    ({"prompt": "q", "chosen": [GOOD], "rejected": [{**BAD, "weight": 0.5}]}, "rejected has a message of weight 0.5"),
    ({"chosen": [USER, {**GOOD, "weight": 0.5}, USER, GOOD], "rejected": [USER, BAD, USER, BAD]}, "chosen has a mess"),
    ({"prompt": "q", "chosen": [GOOD], "rejected": [{**BAD, "train": False}]}, "rejected has no message that is comp"),
    ({"prompt": "q", "chosen": "a", "rejected": " "}, "rejected is empty"),
    ({"prompt": "q", "chosen": "", "rejected": "a"}, "chosen is empty"),
    ({"prompt": "q", "chosen": "a", "rejected": None}, "rejected is missing, expected text"),
    ({"chosen": [USER, GOOD], "rejected": [{**USER, "content": "r"}, BAD]}, "different prompts: .* from message 1 on"),
    ({"chosen": [USER, GOOD, USER, GOOD], "rejected": [USER, GOOD, {**USER, "content": "r"}, BAD]}, "from message 3"),
    ({"prompt": "r", "chosen": [USER, GOOD], "rejected": [USER, BAD]}, "chosen is a whole conversation, and its"),
    ({"chosen": [USER, GOOD], "rejected": [USER]}, "no answer: rejected ends with user, expected assistant"),
    ({"chosen": [USER, GOOD, GOOD], "rejected": [USER, GOOD]}, "rejected is empty after what it shares"),
    ({"chosen": "a", "rejected": "b"}, "chosen has no prompt: give a column prompt"),
    ({"chosen": [GOOD], "rejected": [BAD]}, "chosen has no prompt"),
    ({"chosen": "\n\nAssistant: a", "rejected": "b"}, "chosen has no message of the user"),
    ({"prompt": "q", "chosen": [CALL], "rejected": "b"}, "message 2 calls the tool f, and the row has no tools"),
    ({"prompt": "q", "ranked": ["a"]}, "ranked is not a list with at least two answers"),
    ({"prompt": "q", "ranked": ["a", "b", "a"]}, "answer 1 and answer 3 are equal"),
    ({"prompt": "q", "completions": ["a", "b"], "ratings": [1]}, "there are 2 completions and 1 ratings"),
    ({"prompt": "q", "completions": ["a", "b"], "ratings": [1, "N/A"]}, "rating 2 is 'N/A', expected a number"),
    ({"prompt": "q", "completions": ["a", "b"]}, "answer 1 is str, expected an object with an answer"),
    ({"prompt": "q", "completions": [{"text": "a", "grade": 1}]}, "answer 1 has text, grade, expected an object"),
    ({"messages": [USER, GOOD], "rating": None}, "rating is missing, expected a number"),
    ({"prompt": "q", "completion": "a", "label": True}, "no rejected answer to compare it with. .* loss: kto"),
    ({"prompt": "q", "completion": "a"}, "there is no column rejected: .* loss: kto"),
    ({"prompt": "q", "chosen": "a"}, "there is no column rejected: .* loss: kto"),
    ({"text": "a"}, r"no known format of preference data \(pairs: chosen, rejected; .*module:function.* loss: kto"),
]  # fmt: skip


@pytest.mark.parametrize(("row", "message"), BROKEN)
def test_broken_rows_are_errors_with_file_and_row(row: dict[str, Any], message: str, tmp_path: Path) -> None:
    rows = [*_intact(row), row]
    with pytest.raises(DataError, match=rf"rows.jsonl:{len(rows)}: .*{message}") as caught:
        list(read(tmp_path, *rows))
    assert caught.value.exit_code == 2


def _intact(row: dict[str, Any]) -> list[dict[str, Any]]:
    """A row of the same format that is as it should be; none where the format itself is refused."""
    name = next((name for name, one in PREFERENCE_FORMATS.items() if one.matches(row)), "")
    return PAIRS[name][0][:1] if name in PAIRS else []


def test_a_later_row_without_a_rejected_column_names_kto(tmp_path: Path) -> None:
    rows = [PAIRS["pairs"][0][0], {"prompt": "q", "chosen": "a"}]
    with pytest.raises(DataError, match=r"rows.jsonl:2: the row has no column rejected, .* loss: kto"):
        list(read(tmp_path, *rows))


@pytest.mark.parametrize("label", [None, "good", 2, 0.5])
def test_a_label_that_is_neither_true_nor_false(label: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"rows.jsonl:1: .* expected true or false"):
        list(read(tmp_path, {"prompt": "q", "completion": "a", "label": label}, unpaired=True))


@pytest.mark.parametrize(
    ("mark", "message"), [({"weight": 0.5}, "completion has a message of weight 0.5"), ({"train": False}, "no message")]
)
def test_a_completion_by_itself_that_counts_in_part_or_not_at_all(
    mark: dict[str, Any], message: str, tmp_path: Path
) -> None:
    row = {"prompt": "q", "completion": [{**GOOD, **mark}], "label": True}
    with pytest.raises(DataError, match=rf"rows.jsonl:1: .*{message}"):
        list(read(tmp_path, row, unpaired=True))


def test_equal_answers_of_two_rows_name_both(tmp_path: Path) -> None:
    rows = [{"messages": [USER, GOOD], "rating": 1}, {"messages": [USER, GOOD], "rating": 2}]
    with pytest.raises(DataError, match=r"rows.jsonl:2: the answers of rows 2 and 1 are equal"):
        list(read(tmp_path, *rows))


def test_a_format_for_another_task_is_refused_before_rows_are_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"format alpaca is of conversations, .* loss: kto"):
        read(tmp_path, format="alpaca")
    with pytest.raises(DataError, match=r"format pairs is of preference data, which task: preference learns from"):
        read_conversations([Source(source=str(tmp_path / "rows.jsonl"), format="pairs")])
    with pytest.raises(DataError, match=r"no known format .* of preference data \(pairs\): task: preference learns"):
        list(read_conversations([Source(source="ftk://orders/preference_train")]))
