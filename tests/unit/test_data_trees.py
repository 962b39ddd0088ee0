"""Batches of prompts with completions: positions, what lies aside, columns, idle rows, steps of optimizer."""

from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from data_stand_in import examples_of
from trees_stand_in import flat, tree

from ftk.core.types import Batch
from ftk.data.batches import TrainBatches, evaluation_batches
from ftk.data.collate import collate, idle_batch

PAIR = tree([1, 2, 3], [4, 5], [6, 7, 8], reference_logps=[-1.5, -2.5])
SHORT = tree([9], [10], [11], index=1, reference_logps=[-3.5, -4.5])
SINGLE = tree([1, 2], [3, 4, 5], [6], branches=[1, -1], reference_logps=[-1.0, -2.0], desirable=1.0)


def test_every_completion_goes_on_from_the_end_of_the_prompt() -> None:
    batch = collate([[PAIR], [SHORT]], pad_token_id=0)
    assert batch.input_ids_BL.tolist() == [[1, 2, 3, 4, 5, 6, 7, 8], [9, 10, 11, 0, 0, 0, 0, 0]]
    assert batch.position_ids_BL[0].tolist() == [0, 1, 2, 3, 4, 3, 4, 5]
    assert batch.position_ids_BL[1, :3].tolist() == [0, 1, 1]
    assert batch.branches_BL is not None
    assert batch.branches_BL.tolist() == [[0, 0, 0, 1, 1, 2, 2, 2], [0, 1, 2, 0, 0, 0, 0, 0]]
    assert batch.document_ids_BL.tolist() == [[1] * 8, [1] * 3 + [0] * 5]
    assert batch.weights_BL.tolist() == [[0, 0, 0, 1, 1, 1, 1, 1], [0, 1, 1, 0, 0, 0, 0, 0]]
    assert batch.columns["reference_logps"].tolist() == [[-1.5, -2.5], [-3.5, -4.5]]
    assert (batch.packed, batch.num_tokens, batch.num_examples, batch.indices) == (False, 11, 2, (0, 1))
    assert batch.aside is None


def test_trees_are_packed_like_texts() -> None:
    batch = collate([[PAIR, SHORT], [SHORT]], pad_token_id=0)
    assert batch.packed
    assert batch.branches_BL is not None
    assert batch.document_ids_BL[0].tolist() == [1] * 8 + [2] * 3
    assert batch.branches_BL[0].tolist() == [0, 0, 0, 1, 1, 2, 2, 2, 0, 1, 2]
    assert batch.position_ids_BL[0].tolist() == [0, 1, 2, 3, 4, 3, 4, 5, 0, 1, 1]
    assert batch.columns["reference_logps"].shape == (3, 2)


def test_what_lies_aside_is_the_prompt_with_another_completion() -> None:
    batch = collate([[SINGLE]], pad_token_id=0)
    assert batch.input_ids_BL.tolist() == [[1, 2, 3, 4, 5]]
    assert batch.branches_BL is None, "one completion is a text like any other, and as fast"
    assert batch.answers_BL.tolist() == [[False, False, True, True, True]]
    assert batch.aside is not None
    assert batch.aside.input_ids_BL.tolist() == [[1, 2, 6]]
    assert batch.aside.weights_BL.tolist() == [[0, 0, 1]]
    assert batch.aside.aside is None
    for one in (batch, batch.aside):
        assert one.columns["desirable"].tolist() == [1.0]
        assert one.columns["reference_logps"].tolist() == [[-1.0, -2.0]]
        assert (one.num_examples, one.indices) == (1, (0,))
    assert (batch.num_tokens, batch.aside.num_tokens) == (5, 3)


def test_completions_aside_of_a_pair_are_no_branch_of_it() -> None:
    batch = collate([[tree([1, 2], [3], [4], [5], branches=[1, 2, -1])]], pad_token_id=0)
    assert batch.branches_BL is not None
    assert batch.branches_BL.tolist() == [[0, 0, 1, 2]]
    assert batch.aside is not None
    assert batch.aside.input_ids_BL.tolist() == [[1, 2, 5]]


def test_trees_that_cannot_be_scored_are_refused() -> None:
    with pytest.raises(ValueError, match="no prompt before it"):
        collate([[tree([], [4], [5])]], pad_token_id=0)
    with pytest.raises(ValueError, match="aside and others none"):
        collate([[SINGLE], [replace(SINGLE, branches_L=abs(SINGLE.branches_L))]], pad_token_id=0)
    with pytest.raises(ValueError, match="others are one text"):
        collate([[PAIR], [replace(PAIR, branches_L=None)]], pad_token_id=0)


@pytest.mark.parametrize("example", [PAIR, SINGLE, SHORT])
def test_an_idle_row_has_the_columns_and_the_aside_of_real_ones(example) -> None:
    idle, real = idle_batch(example), collate([[example]], pad_token_id=0)
    assert (idle.aside is None) == (real.aside is None)
    for one in (idle, idle.aside or idle):
        assert (one.num_tokens, one.num_examples, one.indices) == (0, 0, ())
        assert not one.weights_BL.any()
        assert {name: column.shape for name, column in one.columns.items()} == {
            name: column.shape for name, column in real.columns.items()
        }
        assert not any(column.any() for column in one.columns.values())


def test_a_batch_moves_with_all_its_parts() -> None:
    moved = collate([[SINGLE]], pad_token_id=0).to(torch.device("meta"))
    assert moved.aside is not None
    pair = collate([[PAIR]], pad_token_id=0).to(torch.device("meta"))
    assert pair.branches_BL is not None
    parts = (moved.aside.input_ids_BL, moved.columns["desirable"], moved.aside.columns["desirable"], pair.branches_BL)
    assert all(part.is_meta for part in parts)


def pairs(count: int = 11) -> list:
    rng = np.random.default_rng(3)
    return [
        tree(
            *([100 * number + place for place in range(int(rng.integers(2, 9)))] for _ in range(3)),
            index=number,
            reference_logps=[float(number), -float(number)],
        )
        for number in range(count)
    ]


@pytest.mark.parametrize("packing", [False, True])
@pytest.mark.parametrize("num_processes", [1, 2, 5])
def test_steps_hold_each_tree_once_with_its_own_columns(packing: bool, num_processes: int) -> None:
    examples = flat(pairs())
    found: list[int] = []
    for process in range(num_processes):
        source = TrainBatches(
            examples,
            batch_size=4,
            micro_batch_size=2,
            packing=packing,
            max_length=48,
            pad_token_id=0,
            seed=1,
            process_index=process,
            num_processes=num_processes,
        )
        for batch in (batch for step in islice(source, source.steps_per_epoch) for batch in step):
            found += batch.indices
            expected = [[float(index), -float(index)] for index in batch.indices] or [[0.0, 0.0]]
            assert batch.columns["reference_logps"].tolist() == expected
            assert (batch.branches_BL is None) == (not batch.indices)
    assert sorted(found) == list(range(11))


def test_held_out_trees_come_once() -> None:
    parts = [
        evaluation_batches(flat(pairs()), rows_per_batch=3, pad_token_id=0, process_index=one, num_processes=4)
        for one in range(4)
    ]
    assert len({len(part) for part in parts}) == 1
    assert sorted(index for part in parts for batch in part for index in batch.indices) == list(range(11))


def train(examples, **how) -> TrainBatches:
    return TrainBatches(
        flat(examples),
        **{"batch_size": 4, "micro_batch_size": 2, "max_length": 64, "pad_token_id": 0, "seed": 1, **how},
    )


def test_a_label_that_was_edited_is_noticed_on_resuming_and_a_reference_made_anew_is_not() -> None:
    singles = [tree([1, 2], [3], [4], branches=[1, -1], desirable=1.0, reference_logps=[-1.0, -1.0])] * 4
    state = train(singles).state_dict()
    train([replace(one, columns={**one.columns, "reference_logps": np.zeros(2, np.float32)}) for one in singles]
          ).load_state_dict(state)  # fmt: skip
    for edited in (
        replace(singles[0], columns={**singles[0].columns, "desirable": np.float32(0)}),
        replace(singles[0], branches_L=np.array([0, 0, -1, 1], np.int8)),
    ):
        with pytest.raises(Exception, match="contents was"):
            train([edited, *singles[1:]]).load_state_dict(state)


def test_plain_rows_know_nothing_of_trees() -> None:
    batch: Batch = collate([[one] for one in examples_of([4, 6])], pad_token_id=0)
    assert batch.branches_BL is None
    assert batch.aside is None
    assert not batch.columns


def test_the_worst_batch_holds_the_longest_tree_and_the_longest_text() -> None:
    longest_tree = tree(range(10), range(20), range(20))
    longest_text = tree(range(30), range(10), range(2))
    rows = [longest_text, longest_tree, *[tree(range(15), range(15), range(15))] * 6]
    worst = train(rows, batch_size=8).worst_batch(2)
    assert sorted(worst.indices) == [0, 1]
    assert train(rows, batch_size=8).worst_batch(1).indices == (1,)
