"""Answers that weigh a fraction and reasoning that weighs less: packed equals unpacked, any split is one update."""

import json
from pathlib import Path

import numpy as np
import pytest
from separate_rows import assert_any_split_is_one_update, assert_rows_stay_apart
from transformers import AutoTokenizer

import ftk
from ftk.core.types import Examples
from ftk.data.load import read_conversations
from ftk.data.prepare import prepare
from ftk.data.render import renderer_for
from ftk.data.settings import DataSettings, Source
from ftk.objectives.sft import SftObjective

TOKENIZER = AutoTokenizer.from_pretrained(Path(ftk.__file__).parent / "models" / "tiny")
NUM_ROWS = 8


def turns(number: int) -> list[dict]:
    """An answer that weighs a quarter after some reasoning, one that is not learned, and one that weighs all."""
    question = {"role": "user", "content": f"What is {number} and {number}?" + " Please." * (number % 3)}
    answer = {"role": "assistant", "content": f"It is {2 * number}."}
    thought = {"reasoning_content": f"Twice {number} is {2 * number}."}
    return [
        *(question, {**answer, **thought, "weight": 0.25}),
        *(question, {**answer, "weight": 0}),
        *(question, {**answer, **thought, "weight": 1} if number % 2 else answer),
    ]


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Examples:
    file = tmp_path_factory.mktemp("weighed") / "rows.jsonl"
    file.write_text("".join(json.dumps({"messages": turns(number)}) + "\n" for number in range(NUM_ROWS)))
    made, _ = prepare(
        read_conversations([Source(source=str(file))]),
        renderer_for(TOKENIZER, chat_template="chatml_tools"),
        settings=DataSettings(train=str(file)),
        max_length=256,
        prompt_loss_weight=0.125,
        train_on="all",
        reasoning_weight=0.5,
        cache_folder=None,
    )
    # Prompt or reasoning of the first answer, its text, what is not learned, all of the last answer, and its reasoning.
    assert set(np.unique(made.weights)) == {0.0, 0.125, 0.25, 0.5, 1.0}
    return made


def test_packed_equals_unpacked_and_no_row_sees_another(examples: Examples) -> None:
    assert_rows_stay_apart(examples, vocabulary=len(TOKENIZER), max_length=512)


def test_any_split_is_the_same_update(examples: Examples) -> None:
    assert_any_split_is_one_update(examples, SftObjective(), vocabulary=len(TOKENIZER), max_length=512)
