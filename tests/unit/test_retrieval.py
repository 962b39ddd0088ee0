"""Rows with retrieved documents: which are shown, in which order, and what is asked without them."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from test_data_formats import read as read_rows

from ftk.core.errors import DataError
from ftk.data.load import read_conversations
from ftk.data.retrieval import Retrieval, laid_out, mixed
from ftk.data.settings import Source
from ftk.runs.without_context import context_sentence, rows_without_context

NUM = 400


def read(tmp_path: Path, *rows: dict[str, Any], retrieval: Retrieval | None = None, **source: Any) -> Any:
    list(read_rows(tmp_path, *rows))
    sources = [Source(source=str(tmp_path / "rows.jsonl"), **source)]
    return read_conversations(sources, retrieval=retrieval or Retrieval())


def rows(num: int = NUM) -> list[dict[str, Any]]:
    return [{"context": f"c{n}", "question": f"q{n}?", "answer": f"a{n}"} for n in range(num)]


def shown(row: Any) -> list[str]:
    """The documents in a prompt."""
    return list(row.messages[-2]["content"].split("\n\n")[:-1])


def test_the_layout_by_hand() -> None:
    assert laid_out(["d", "e"], "q") == "d\n\ne\n\nq"
    assert laid_out([], "q", layout="Read: {context} Say: {question}") == "q"
    layout = "Read: {context}. Say: {question}!"
    # What a document spells out is not a place for the question.
    assert laid_out(["{question}", "e"], "q", layout=layout, separator=" | ") == "Read: {question} | e. Say: q!"


def test_a_row_by_itself_shows_its_documents_and_the_question_last(tmp_path: Path) -> None:
    row = {"context": ["c", "d"], "distractors": "x", "question": "q?", "answer": "a"}
    (one,) = read(tmp_path, row, system="s")
    assert sorted(shown(one)) == ["c", "d", "x"]
    assert one.messages[0] == {"role": "system", "content": "s"}
    assert one.messages[-2]["content"].endswith("\n\nq?")
    assert one.without_context == (one.messages[0], {"role": "user", "content": "q?"}, one.messages[-1])
    (bare,) = rows_without_context([one])
    assert (bare.messages, bare.without_context) == (one.without_context, None)


def test_distractors_are_mixed_in_by_their_rate_at_every_place(tmp_path: Path) -> None:
    found = read(tmp_path, *rows(), retrieval=Retrieval(distractors=3, rate=0.25, leave_out=0.5))
    places: Counter[int] = Counter()
    num_wrong = num_left_out = 0
    for number, row in enumerate(found):
        documents = shown(row)
        assert len(documents) == len(set(documents))
        right, wrong = f"c{number}" in documents, [one for one in documents if one != f"c{number}"]
        assert len(wrong) in (0, 3)
        num_wrong += bool(wrong)
        num_left_out += not right
        if right and wrong:
            places[documents.index(f"c{number}")] += 1
    # Of 400 draws: more than five standard deviations to either side.
    assert abs(num_wrong - 100) < 45
    assert abs(num_left_out - 200) < 51
    assert set(places) == {0, 1, 2, 3}


def test_held_out_rows_keep_their_documents(tmp_path: Path) -> None:
    settings = Retrieval(distractors=2, leave_out=0.9).held_out
    assert all(f"c{n}" in shown(row) for n, row in enumerate(read(tmp_path, *rows(50), retrieval=settings)))


def test_draws_are_of_the_seed_and_the_row_alone(tmp_path: Path) -> None:
    settings = Retrieval(distractors=2, rate=0.5)
    first, again = (list(read(tmp_path, *rows(40), retrieval=settings)) for _ in range(2))
    assert first == again
    other = list(read(tmp_path, *rows(40), retrieval=Retrieval(distractors=2, rate=0.5, seed=1)))
    assert [shown(row) for row in first] != [shown(row) for row in other]
    # Another share of rows without their documents leaves it alone which rows get distractors.
    with_less = list(read(tmp_path, *rows(40), retrieval=Retrieval(distractors=2, rate=0.5, leave_out=0.3)))
    number = [sum(not one.startswith("c0") and one != f"c{n}" for one in shown(row)) for n, row in enumerate(first)]
    assert [bool(one) for one in number] == [
        any(one != f"c{n}" for one in shown(row)) for n, row in enumerate(with_less)
    ]


def test_the_rows_own_distractors_go_first() -> None:
    settings = Retrieval(distractors=3)
    documents = mixed(["c"], ["x", "y"], ["c", "x", "p", "y"], settings=settings, key="1")
    assert sorted(documents) == ["c", "p", "x", "y"]
    few = mixed(["c"], ["x", "y", "z", "w"], [], settings=settings, key="1")
    assert len(few) == 4
    assert "c" in few
    assert mixed(["c"], ["x"], [], settings=Retrieval(distractors=0), key="1") == ["c"]


def test_too_few_rows_to_draw_from_is_an_error_with_the_row(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"rows.jsonl:1: 5 distractors are asked for, and there are 2: "):
        list(read(tmp_path, *rows(3), retrieval=Retrieval(distractors=5)))


@pytest.mark.parametrize(
    ("columns", "fault"),
    [
        ({"context": 3}, "context is int, expected a text or a list of texts"),
        ({"context": ["a", 3]}, "context is a list with 3, expected"),
        ({"distractors": {"a": 1}}, "distractors is dict"),
    ],
)
def test_documents_that_do_not_read_are_errors_with_the_row(
    columns: dict[str, Any], fault: str, tmp_path: Path
) -> None:
    good = rows(1)[0]
    with pytest.raises(DataError, match=rf"rows.jsonl:2: .*{fault}"):
        list(read(tmp_path, good, {**good, **columns}, format="context_question_answer"))


def test_settings_that_cannot_be() -> None:
    for layout in ("{context}", "{question} {question} {context}"):
        with pytest.raises(ValueError, match="once each"):
            Retrieval(layout=layout)


def test_what_the_documents_add_in_words() -> None:
    after = {"loss": 1.0, "loss@no_context": 3.0, "exact_match": 0.9, "exact_match@no_context": 0.2}
    sentence = context_sentence(after) or ""
    assert "exact_match is 90.0% with the retrieved documents and 20.0% without: 70.0 points" in sentence
    assert context_sentence({"loss": 1.0}) is None
    only_loss = context_sentence({"loss": 1.0, "loss@no_context": 3.0}) or ""
    assert "loss is 1 with the retrieved documents and 3 without" in only_loss


def test_rows_that_are_compared_show_their_own_documents_in_one_order(tmp_path: Path) -> None:
    """Bias is measured between rows of a group: the order of their documents must be no other difference."""
    given = [
        {
            "group": f"g{pair}",
            "context": [f"{name} one", f"{name} two"],
            "distractors": [f"{name} x", f"{name} y", f"{name} z"],
            "question": f"{name} {pair}?",
            "answer": "a",
        }
        for pair in range(20)
        for name in ("Maria", "Mario")
    ]
    list(read_rows(tmp_path, *given))
    recipe = Retrieval(distractors=1, rate=0.5, leave_out=0.5, layout="{context} | {question}", separator="; ")
    source = Source(source=str(tmp_path / "rows.jsonl"))
    found = list(read_conversations([source], retrieval=recipe.compared, group="group"))
    prompts = [str(row.messages[-2]["content"]) for row in found]
    assert [prompt.replace("Maria", "Mario") for prompt in prompts[::2]] == prompts[1::2]
    assert len({prompt.partition(" | ")[0] for prompt in prompts[::2]}) > 5
    assert all(prompt.count(";") == 4 for prompt in prompts)
