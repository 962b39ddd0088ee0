"""Which rows an estimate is for: preferences with their prompt once, and models that read further than they did."""

import pytest

from ftk.core.errors import RecipeError
from ftk.runs.asked import Flags, ask
from ftk.runs.imagined_batch import imagined_batches

QWEN = "Qwen/Qwen2.5-0.5B"


def test_a_pair_is_one_row_with_its_prompt_once() -> None:
    """Prompt and answers of 32 tokens each, 96 in all; the answers alone are scored."""
    asked = ask(("task=preference",), Flags(model="ftk://tiny", sequence_length="64", batch_size="3"))
    setup = asked.setup
    assert (setup.rows, setup.length, setup.scored, setup.packed) == (3, 96, 3 * 64, True)
    batch = imagined_batches(asked.recipe, rows=3, length=64, count=1)[0]
    assert batch.input_ids_BL.shape == (setup.rows, setup.length)
    assert int((batch.weights_BL > 0).sum()) == setup.scored


def test_answers_have_rows_of_their_own_where_a_window_does_not_hold_a_pair() -> None:
    setup = ask(("task=preference",), Flags(model="google/Gemma-3-1b-it", sequence_length="512")).setup
    assert (setup.rows, setup.length, setup.scored) == (2, 512, 512)
    short = ask(("task=preference",), Flags(model="google/Gemma-3-1b-it", sequence_length="128")).setup
    assert (short.rows, short.length) == (1, 192)


def test_an_answer_by_itself_is_half_of_its_row() -> None:
    asked = ask(("task={name: preference, loss: kto}",), Flags(model="ftk://tiny", sequence_length="64"))
    assert (asked.setup.rows, asked.setup.length, asked.setup.scored) == (1, 64, 32)
    batch = imagined_batches(asked.recipe, rows=1, length=64, count=1)[0]
    assert batch.input_ids_BL.shape == (1, 64)
    assert batch.aside is not None


def test_a_model_that_is_extended_is_estimated_at_its_new_length() -> None:
    def asked(*words: str, **flags: str) -> tuple[int, int | None]:
        found = ask(words, Flags(model=QWEN, **flags))
        return found.setup.length, found.numbers.architecture.positions

    assert asked("model.context.length=65536") == (65536, 65536)
    assert asked("model.context.length=65536", sequence_length="40000") == (40000, 65536)
    assert asked("model.context={scaling: {name: yarn, factor: 4}}") == (131072, 131072)
    plain = ask((), Flags(model=QWEN, sequence_length="4096")).numbers
    extended = ask(("model.context.length=65536",), Flags(model=QWEN, sequence_length="4096")).numbers
    assert extended.weights == plain.weights


def test_beyond_the_positions_it_is_said_how_to_go_there() -> None:
    with pytest.raises(RecipeError, match=r"model\.context\.length=99999"):
        ask((), Flags(model=QWEN, sequence_length="99999"))
    with pytest.raises(RecipeError, match="has 32768 positions already"):
        ask(("model.context.length=1024",), Flags(model=QWEN))
