"""Formats of preference data: what each reads, how pairs come of it, and what is refused."""

import sys
from pathlib import Path
from typing import Any

import pytest
from comparison_rows import BAD, GOOD, PAIRS, USER, read

from ftk.core.errors import DataError
from ftk.core.types import Comparison
from ftk.data.comparisons import Comparisons, conversations, read_comparisons
from ftk.data.formats import PREFERENCE_FORMATS
from ftk.data.settings import Source

LABELLED = [
    [{"prompt": "q", "completion": "good", "label": True}, {"prompt": "q", "completion": "bad", "label": False}],
    [{"prompt": [USER], "completion": [GOOD], "label": 1}, {"prompt": "q", "completion": "bad", "label": "False"}],
    [{"completion": [USER, GOOD], "label": "true"}, {"completion": [USER, BAD], "label": 0}],
]
CASES = [(name, rows) for name, files in PAIRS.items() for rows in files]


def said(comparisons: Comparisons) -> list[tuple[str, ...]]:
    """The text of each prompt's last message, and of the completions' first ones."""
    return [
        (one.prompt[-1]["content"], *(completion[0]["content"] for completion in one.completions))
        for one in comparisons
    ]


@pytest.mark.parametrize(("name", "rows"), CASES)
def test_each_format_of_pairs_is_found_from_its_columns_and_read(name: str, rows: list[Any], tmp_path: Path) -> None:
    comparisons = read(tmp_path, *rows)
    assert [(one.prompt, one.completions, one.desirable) for one in comparisons] == [((USER,), ((GOOD,), (BAD,)), None)]
    (taken,) = comparisons.taken
    assert (taken.format, taken.found, taken.num_rows) == (name, True, len(rows))
    assert f"rows, format {name} (found from the columns)" in str(taken)


@pytest.mark.parametrize(("name", "rows"), CASES)
def test_pairs_become_two_rows_under_an_unpaired_loss(name: str, rows: list[Any], tmp_path: Path) -> None:
    comparisons = read(tmp_path, *rows, unpaired=True)
    found = [(one.prompt, one.completions, one.desirable) for one in comparisons]
    assert found == [((USER,), ((GOOD,),), True), ((USER,), ((BAD,),), False)]
    if len(rows) == 1:
        assert str(comparisons.taken[0]).endswith(f"1 rows, format {name} (found from the columns): 2 completions")


@pytest.mark.parametrize("rows", LABELLED)
def test_labelled_completions(rows: list[Any], tmp_path: Path) -> None:
    comparisons = read(tmp_path, *rows, unpaired=True)
    assert comparisons.taken[0].format == "unpaired"
    found = [(one.prompt, one.completions, one.desirable, one.row) for one in comparisons]
    assert found == [((USER,), ((GOOD,),), True, 1), ((USER,), ((BAD,),), False, 2)]


def test_every_format_has_a_case() -> None:
    assert {*PAIRS, "unpaired"} == set(PREFERENCE_FORMATS)


def test_columns_are_mapped(tmp_path: Path) -> None:
    row = {"instruction": "q", "better": "good", "worse": "bad"}
    columns = {"prompt": "instruction", "chosen": "better", "rejected": "worse"}
    for format in ("auto", "pairs"):
        comparisons = read(tmp_path, row, columns=columns, format=format)
        assert said(comparisons) == [("q", "good", "bad")]
        assert comparisons.taken[0].found == (format == "auto")


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "own_pairs.py").write_text(
        "def pair(row):\n"
        "    return {'prompt': row['x'], 'chosen': row['x'] * 2, 'rejected': row['x'] * 3}\n"
        "def label(row):\n"
        "    return {'prompt': row['x'], 'completion': row['x'] * 2, 'label': row['x'] == 'a'}\n"
        "def nothing(row):\n"
        "    return {'x': row['x']}\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_pairs", raising=False)
    return "own_pairs"


def test_rows_read_by_a_function_of_the_users_own(own_module: str, tmp_path: Path) -> None:
    rows = [{"x": "a"}, {"x": "b"}]
    assert said(read(tmp_path, *rows, format=f"{own_module}:pair")) == [("a", "aa", "aaa"), ("b", "bb", "bbb")]
    labelled = read(tmp_path, *rows, format=f"{own_module}:label", unpaired=True)
    assert [one.desirable for one in labelled] == [True, False]
    with pytest.raises(DataError, match=r"rows.jsonl:1: .* own_pairs:nothing gave {'x': 'a'}, expected the columns"):
        list(read(tmp_path, *rows, format=f"{own_module}:nothing"))


def test_the_shared_prefix_of_conversations_is_the_prompt(tmp_path: Path) -> None:
    shared = [{"role": "system", "content": "s"}, USER, GOOD, {"role": "user", "content": "and?"}]
    (one,) = read(tmp_path, {"chosen": [*shared, GOOD], "rejected": [*shared, BAD]})
    assert (list(one.prompt), one.completions) == (shared, ((GOOD,), (BAD,)))


def test_completions_of_several_turns_begin_where_they_differ(tmp_path: Path) -> None:
    chosen, rejected = [USER, GOOD, USER, GOOD], [USER, BAD, USER, GOOD]
    (one,) = read(tmp_path, {"chosen": chosen, "rejected": rejected})
    assert (one.prompt, one.completions) == ((USER,), (tuple(chosen[1:]), tuple(rejected[1:])))
    # What both sides say first belongs to the prompt, though the prompt is given without it.
    (one,) = read(tmp_path, {"prompt": [USER], "chosen": [GOOD, USER, GOOD], "rejected": [GOOD, USER, BAD]})
    assert (one.prompt, one.completions) == ((USER, GOOD, USER), ((GOOD,), (BAD,)))


def test_marks_within_the_shared_prefix_are_no_difference(tmp_path: Path) -> None:
    for mark in ({"weight": 0.5}, {"weight": 0}, {"train": False}):
        shared = [USER, {**GOOD, **mark}, USER]
        row = {"chosen": [*shared, GOOD], "rejected": [USER, GOOD, USER, BAD]}
        (one,) = read(tmp_path, row)
        assert (len(one.prompt), one.completions) == (3, ((GOOD,), (BAD,))), mark
        rated = [{"messages": row["chosen"], "rating": 2}, {"messages": row["rejected"], "rating": 1}]
        (one,) = read(tmp_path, *rated)
        assert (len(one.prompt), one.completions) == (3, ((GOOD,), (BAD,))), mark


def test_a_message_may_be_shown_and_not_compared(tmp_path: Path) -> None:
    silent = {"role": "assistant", "content": "let me see", "weight": 0}
    (one,) = read(tmp_path, {"prompt": "q", "chosen": [silent, USER, GOOD], "rejected": [BAD, USER, BAD]})
    assert [message.get("train") for message in one.completions[0]] == [False, None, None]


def test_what_a_tool_gave_belongs_to_the_answer_that_called_it(tmp_path: Path) -> None:
    call = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}
    sides = [[USER, call, {"role": "tool", "content": given}, GOOD] for given in ("1", "2")]
    tools = [{"type": "function", "function": {"name": "f"}}]
    (one,) = read(tmp_path, {"chosen": sides[0], "rejected": sides[1], "tools": tools})
    assert (one.prompt, [len(completion) for completion in one.completions]) == ((USER,), [3, 3])
    assert one.tools == tuple(tools)


def test_a_system_message_is_put_before_prompts_that_have_none(tmp_path: Path) -> None:
    (one,) = read(tmp_path, {"prompt": "q", "chosen": "good", "rejected": "bad"}, system="given")
    assert one.prompt == ({"role": "system", "content": "given"}, USER)


RANKED = {"prompt": "q", "ranked": ["a", "b", "c"]}


@pytest.mark.parametrize(
    ("pairs", "expected"), [("all", ["ab", "ac", "bc"]), ("adjacent", ["ab", "bc"]), ("best_worst", ["ac"])]
)
def test_ranked_lists_become_pairs(pairs: str, expected: list[str], tmp_path: Path) -> None:
    comparisons = read(tmp_path, RANKED, pairs=pairs)
    assert ["".join(answers) for _, *answers in said(comparisons)] == expected
    assert f"{len(expected)} pairs" in str(comparisons.taken[0]) or len(expected) == 1
    rated = {"prompt": "q", "completions": [*"cab"], "ratings": [1, 3, 2]}
    assert ["".join(answers) for _, *answers in said(read(tmp_path, rated, pairs=pairs))] == expected


def test_equal_ratings_give_no_pair_and_that_is_said(tmp_path: Path) -> None:
    rows = [
        {"prompt": "q", "completions": [*"abc"], "ratings": [2, 2, 1]},
        {"prompt": "r", "completions": [*"ab"], "ratings": [1, 1]},
        {"prompt": "s", "completions": [], "ratings": []},
    ]
    comparisons = read(tmp_path, *rows)
    assert said(comparisons) == [("q", "a", "c"), ("q", "b", "c")]
    assert str(comparisons.taken[0]).endswith("2 pairs; 2 prompts gave none: no two answers of different worth")
    with pytest.raises(DataError, match=r"rows.jsonl: no prompt has two answers of different worth"):
        list(read(tmp_path, *rows[1:]))


def test_rated_rows_are_grouped_by_prompt_wherever_they_stand(tmp_path: Path) -> None:
    def row(prompt: str, answer: str, rating: float) -> dict[str, Any]:
        messages = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
        return {"messages": messages, "rating": rating}

    rows = [row("q", "a", 1), row("r", "d", 4), row("q", "b", 3), row("s", "x", 1), row("r", "e", 5), row("q", "c", 2)]
    comparisons = read(tmp_path, *rows)
    assert said(comparisons) == [("q", "b", "c"), ("q", "b", "a"), ("q", "c", "a"), ("r", "e", "d")]
    assert [one.row for one in comparisons] == [3, 3, 6, 5]  # where the better one stands
    with_tools = {**row("s", "y", 2), "tools": [{"type": "function", "function": {"name": "f"}}]}
    assert len(read(tmp_path, *rows, with_tools)) == 4  # another prompt, though its words are the same
    assert "6 rows, format rated_messages (found from the columns): 4 pairs; 1 prompts gave none" in str(
        comparisons.taken[0]
    )


def test_the_good_answer_of_each_prompt_once(tmp_path: Path) -> None:
    rows = [RANKED, {"prompt": "r", "ranked": ["x", "y"]}]
    found = conversations(read(tmp_path, *rows))
    assert [[message["content"] for message in one.messages] for one in found] == [["q", "a"], ["r", "x"]]
    assert found[0].columns == RANKED
    labelled = read(tmp_path, *LABELLED[0], {"prompt": "z", "completion": "b", "label": False}, unpaired=True)
    assert [one.messages for one in conversations(labelled)] == [(USER, GOOD)]


def test_fingerprint_changes_with_all_that_comparisons_depend_on(tmp_path: Path) -> None:
    same = read(tmp_path, RANKED).fingerprint
    assert read(tmp_path, RANKED).fingerprint == same
    others = [
        read(tmp_path, RANKED, pairs="adjacent").fingerprint,
        read(tmp_path, RANKED, unpaired=True).fingerprint,
        read(tmp_path, RANKED, system="s").fingerprint,
    ]
    assert len({same, *others}) == 4


def test_the_first_rows_are_read_without_the_rest(tmp_path: Path) -> None:
    rows = [PAIRS["pairs"][0][0], {"prompt": "q"}]
    comparisons = read(tmp_path, *rows)
    assert [one.row for one in comparisons.head(1)] == [1]
    assert comparisons.formats == {str(tmp_path / "rows.jsonl"): "pairs"}


def test_gsm8k_preferences_read() -> None:
    file = Path(__file__).parents[3] / "shared" / "data" / "gsm8k_preference.jsonl"
    if not file.exists():
        pytest.skip("../shared/data is not here")
    comparisons = read_comparisons([Source(source=str(file))], unpaired=False)
    assert (len(comparisons), comparisons.taken[0].format) == (511, "pairs")
    first: Comparison = comparisons[0]
    assert [len(completion) for completion in first.completions] == [1, 1]
    assert first.prompt[0]["content"] == first.columns["prompt"]
