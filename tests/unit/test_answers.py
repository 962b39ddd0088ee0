"""Judged answers: groups, metrics, how rows and examples are picked, and what is written."""

import json
import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from data_stand_in import assistant, byte_tokenizer, conversation, user
from transformers import LlamaConfig, LlamaForCausalLM

from ftk.core.errors import DataError, RecipeError
from ftk.core.types import Conversation
from ftk.data.render import Renderer
from ftk.data.template_text import template_text
from ftk.evaluation.answers import averages, check_metrics, groups_by, judge
from ftk.evaluation.metrics.custom import CustomMetric
from ftk.evaluation.metrics.exact_match import ExactMatch
from ftk.evaluation.metrics.json_fields import JsonFields
from ftk.evaluation.metrics.rouge_l import RougeL
from ftk.runs.answers import evaluate_answers, pick_rows, pick_shots

COLUMNS = [{"unseen": True, "city": "Bern"}, {"unseen": False, "city": "Rom"}, {"unseen": True, "city": "Rom"}]


def test_averages_over_rows_and_groups():
    values = {"exact_match": [1.0, 0.0, 0.0], "json_fields.date": [math.nan, 0.5, 1.0]}
    found = averages(values, groups_by("unseen", COLUMNS))
    assert found["exact_match"] == pytest.approx(1 / 3)
    assert found["exact_match[unseen=true]"] == 0.5
    assert found["exact_match[unseen=false]"] == 0.0
    assert found["json_fields.date"] == 0.75, "a row without the field does not count"
    assert averages({"f1": [1.0]}, ["city=Bern"]) == {"f1": 1.0, "f1[city=Bern]": 1.0}
    assert math.isnan(averages({"f1": [math.nan]})["f1"])


def test_columns_that_are_no_groups_are_refused():
    with pytest.raises(DataError, match="row 1 has no column seen to group by; it has unseen, city"):
        groups_by("seen", COLUMNS)
    with pytest.raises(DataError, match="51 different values"):
        groups_by("id", [{"id": number} for number in range(51)])
    assert len(groups_by("id", [{"id": number} for number in range(50)])) == 50


def test_metrics_are_checked_before_anything_is_generated():
    references = ['{"a": 1}', "no object"]
    with pytest.raises(DataError, match="evaluation row 2"):
        check_metrics([RougeL(), JsonFields()], references, [{}, {}])
    with pytest.raises(RecipeError, match="no module"):
        check_metrics([CustomMetric(name="no_such_module:f")], references, [{}, {}])
    assert judge([RougeL(), ExactMatch()], ["a", "b"], ["a", "a"], [{}, {}]) == {
        "rouge_l": [1.0, 0.0],
        "exact_match": [1.0, 0.0],
    }


def rows_of(questions: str) -> list[Conversation]:
    return [
        conversation(user(f"{letter}?"), assistant(letter), row=number) for number, letter in enumerate(questions, 1)
    ]


def test_rows_are_picked_evenly():
    assert [row.row for row in pick_rows(rows_of("abcdefghij"), 4)] == [1, 3, 6, 8]
    assert [row.row for row in pick_rows(rows_of("abc"), 5)] == [row.row for row in pick_rows(rows_of("abc"), None)]


def test_examples_are_drawn_by_the_seed_and_are_not_asked_about():
    train, asked = rows_of("abcdefghij"), rows_of("bdf")
    shots = pick_shots(train, 3, seed=1, without=asked)
    assert shots == pick_shots(train, 3, seed=1, without=asked)
    assert shots != pick_shots(train, 3, seed=2, without=asked)
    everything = pick_shots(train, 7, seed=1, without=asked)
    assert {row.messages[0]["content"] for row in everything} == {f"{letter}?" for letter in "aceghij"}
    with pytest.raises(DataError, match="8 examples were asked for, and only 7"):
        pick_shots(train, 8, seed=1, without=asked)


@pytest.fixture(scope="module")
def chat() -> SimpleNamespace:
    tokenizer = byte_tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=256,
        initializer_range=0.3,
    )
    return SimpleNamespace(
        model=LlamaForCausalLM(config), renderer=Renderer(tokenizer, template_text("chatml", tokenizer))
    )


def test_answers_are_generated_judged_and_written(chat, tmp_path):
    rows = [
        Conversation((user(f"{letter}?"), assistant(letter * 2)), number, "rows.jsonl", {"kind": letter < "c"})
        for number, letter in enumerate("abcd", 1)
    ]
    said: list[str] = []
    settings: dict[str, Any] = {"metrics": [ExactMatch(), RougeL()], "max_new_tokens": 8, "pad_token_id": 0}
    first = evaluate_answers(chat.model, chat.renderer, rows, **settings, tell=said.append)
    assert first.num_examples == 4
    assert set(first.metrics) == {"exact_match", "rouge_l"}
    # The model's own answers as references: it must match itself, batched or not, wherever a row stands.
    own = [
        Conversation((row.messages[0], assistant(judged.answer or "-")), row.row, row.source, row.columns)
        for row, judged in zip(rows, first.rows, strict=True)
    ]
    file = tmp_path / "new" / "answers.jsonl"
    again = evaluate_answers(
        chat.model, chat.renderer, own[::-1], **settings, by="kind", answers_file=file, batch_size=3
    )
    assert again.metrics["exact_match"] == again.metrics["exact_match[kind=true]"] == 1.0
    records = [json.loads(line) for line in file.read_text().splitlines()]
    assert [record["row"] for record in records] == [4, 3, 2, 1]
    assert records[0]["prompt"].endswith("d?<|im_end|>\n<|im_start|>assistant\n")
    assert records[0]["answer"] == records[0]["reference"]
    assert records[0]["metrics"]["exact_match"] == 1.0
    assert records[0]["shots"] == 0
    num_cut = sum(record["is_cut"] for record in records)
    assert (said == [f"{num_cut} of 4 answers did not end within 8 tokens"]) == bool(num_cut)


def test_examples_stand_before_the_question(chat):
    shots = rows_of("xy")
    answered = evaluate_answers(
        chat.model, chat.renderer, rows_of("a"), metrics=[RougeL()], max_new_tokens=2, pad_token_id=0, shots=shots
    )
    prompt = answered.rows[0].prompt
    assert prompt.index("x?") < prompt.index("y?") < prompt.index("a?")
    assert "a<|im_end|>" not in prompt, "the answer itself is not shown"
    assert json.loads(answered.lines()[0])["shots"] == 2


def test_examples_that_leave_no_room_are_refused_with_the_row(chat):
    with pytest.raises(DataError, match=r"rows.jsonl:1: the prompt with 18 examples has .* 256 positions. Show fewer"):
        evaluate_answers(
            chat.model,
            chat.renderer,
            rows_of("a"),
            metrics=[RougeL()],
            max_new_tokens=2,
            pad_token_id=0,
            shots=rows_of("bcdefghijklmnopqrs"),
        )
