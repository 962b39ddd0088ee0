"""Optimizer steps: order, dealing, packing, resume, and batches for evaluation."""

import json
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from data_stand_in import examples_of

from ftk.core.errors import DataError
from ftk.core.types import Batch, Examples
from ftk.data.batches import TrainBatches, evaluation_batches
from ftk.data.collate import collate
from ftk.data.deal import deal
from ftk.data.order import epoch_order

LENGTHS = [int(length) for length in np.random.default_rng(1).integers(4, 60, size=53)]
EXAMPLES = examples_of(LENGTHS)


def train(examples: Examples = EXAMPLES, **how: Any) -> TrainBatches:
    settings: dict[str, Any] = {
        "batch_size": 8, "micro_batch_size": 3, "max_length": 64, "pad_token_id": 7, "seed": 5, **how
    }  # fmt: skip
    return TrainBatches(examples, **settings)


def drawn(batches: list[Batch]) -> list[int]:
    return sorted(index for batch in batches for index in batch.indices)


def steps(source: TrainBatches, number: int) -> list[list[Batch]]:
    return list(islice(source, number))


def assert_equal(one: Batch, other: Batch) -> None:
    for name in ("input_ids_BL", "position_ids_BL", "document_ids_BL", "weights_BL", "answers_BL"):
        assert torch.equal(getattr(one, name), getattr(other, name))
    assert one.indices == other.indices


@pytest.mark.parametrize("packing", [False, True])
def test_an_epoch_holds_each_example_once_and_the_last_step_is_the_rest(packing: bool) -> None:
    source = train(packing=packing)
    assert source.steps_per_epoch == 7
    epoch = steps(source, 7)
    assert sorted(index for step in epoch for index in drawn(step)) == list(range(53))
    assert [len(drawn(step)) for step in epoch] == [8] * 6 + [5]
    assert source.epoch == 1.0


@pytest.mark.parametrize("packing", [False, True])
@pytest.mark.parametrize("num_processes", [1, 2, 3, 8])
@pytest.mark.parametrize("micro_batch_size", [1, 3, 100])
def test_steps_do_not_depend_on_processes_or_micro_batch(
    packing: bool, num_processes: int, micro_batch_size: int
) -> None:
    expected = [drawn(step) for step in steps(train(), 10)]
    parts = [
        steps(
            train(
                micro_batch_size=micro_batch_size,
                packing=packing,
                process_index=process,
                num_processes=num_processes,
            ),
            10,
        )
        for process in range(num_processes)
    ]
    for number, step in enumerate(zip(*parts, strict=True)):
        assert len({len(micro_batches) for micro_batches in step}) == 1
        assert drawn([batch for micro_batches in step for batch in micro_batches]) == expected[number]
        assert all(len(batch.input_ids_BL) <= micro_batch_size for batches in step for batch in batches)
        weight = sum(float(batch.weights_BL.sum()) for batches in step for batch in batches)
        assert weight == pytest.approx(sum(float(EXAMPLES[index].weights_L.sum()) for index in expected[number]))


@pytest.mark.parametrize("packing", [False, True])
@pytest.mark.parametrize("num_processes", [1, 2, 3, 8])
@pytest.mark.parametrize("tokens", [1, 70, 130, 10_000])
def test_a_micro_batch_of_tokens_holds_at_most_so_many_or_one_row(
    packing: bool, num_processes: int, tokens: int
) -> None:
    parts = [
        steps(train(micro_batch_tokens=tokens, packing=packing, process_index=process, num_processes=num_processes), 10)
        for process in range(num_processes)
    ]
    for number, step in enumerate(zip(*parts, strict=True)):
        assert len({len(micro_batches) for micro_batches in step}) == 1
        batches = [batch for micro_batches in step for batch in micro_batches]
        assert drawn(batches) == drawn(steps(train(), 10)[number])
        most = max(tokens, *(batch.input_ids_BL.shape[1] for batch in batches))
        assert all(batch.input_ids_BL.numel() <= most for batch in batches)


def test_tokens_a_micro_batch_are_dealt_evenly_over_processes_and_passes() -> None:
    lengths = np.array([30, 30, 20, 20, 10, 10], np.int64)
    rows = list(range(6))
    deal_tokens = partial(deal, rows, lengths, tokens_per_batch=1000)
    assert deal_tokens(num_processes=1) == [[[0, 1, 2, 3, 4, 5]]]
    assert deal_tokens(num_processes=2) == [[[0, 1]], [[2, 3, 4, 5]]]
    assert deal(rows, lengths, tokens_per_batch=90, num_processes=1) == [[[0, 1], [2, 3, 4, 5]]]


def test_a_process_without_rows_gets_one_of_weight_zero_with_real_tokens() -> None:
    source = train(examples_of([9, 5]), num_processes=4, process_index=3, micro_batch_size=1)
    ((idle,),) = steps(source, 1)
    assert (idle.num_tokens, idle.num_examples, idle.indices) == (0, 0, ())
    assert float(idle.weights_BL.sum()) == 0
    assert not idle.answers_BL.any()
    assert (idle.document_ids_BL == 1).all()
    assert idle.input_ids_BL.tolist() == [[100, 101, 102, 103, 104]]


def test_the_order_is_of_seed_and_epoch_alone() -> None:
    assert [drawn(step) for step in steps(train(), 7)] == [drawn(step) for step in steps(train(), 7)]
    assert drawn(steps(train(seed=5), 1)[0]) != drawn(steps(train(seed=6), 1)[0])
    two_epochs = steps(train(), 14)
    assert [drawn(step) for step in two_epochs[:7]] != [drawn(step) for step in two_epochs[7:]]
    assert sorted(index for step in two_epochs[7:] for index in drawn(step)) == list(range(53))


def test_rows_of_like_length_go_together() -> None:
    source = train(batch_size=53, micro_batch_size=4)
    (step,) = steps(source, 1)
    widths = [batch.input_ids_BL.shape[1] for batch in step]
    assert widths == sorted(widths, reverse=True)
    padded = sum(batch.input_ids_BL.numel() for batch in step)
    assert padded < 1.1 * sum(LENGTHS)


def test_batch_tokens_draws_until_the_next_example_would_pass_it() -> None:
    source = train(batch_tokens=200)
    epoch = steps(source, source.steps_per_epoch)
    assert sorted(index for step in epoch for index in drawn(step)) == list(range(53))
    order = epoch_order(53, seed=5, epoch=0)
    totals = [sum(LENGTHS[index] for index in drawn(step)) for step in epoch]
    assert all(total <= 200 for total in totals)
    place = 0
    for total, step in zip(totals[:-1], epoch, strict=False):
        place += len(drawn(step))
        assert total + LENGTHS[order[place]] > 200


def test_batch_tokens_takes_an_example_that_is_longer_alone() -> None:
    source = train(examples_of([30, 4, 4]), batch_tokens=10)
    assert sorted(sorted(LENGTH for LENGTH in map(len, map(drawn, steps(source, 2))))) == [1, 2]


def test_padding_and_document_borders() -> None:
    batch = collate([[EXAMPLES[0], EXAMPLES[1]], [EXAMPLES[2]]], pad_token_id=7)
    one, two, three = (LENGTHS[number] for number in range(3))
    width = max(one + two, three)
    assert batch.packed
    assert batch.input_ids_BL.shape == (2, width)
    assert batch.document_ids_BL[0].tolist() == [1] * one + [2] * two + [0] * (width - one - two)
    assert batch.position_ids_BL[0, : one + two].tolist() == [*range(one), *range(two)]
    assert batch.document_ids_BL[1].tolist() == [1] * three + [0] * (width - three)
    # The first token of a document is never predicted from its neighbour's last.
    assert batch.weights_BL[0, 0] == batch.weights_BL[0, one] == batch.weights_BL[1, 0] == 0
    padding = batch.document_ids_BL == 0
    assert (batch.input_ids_BL[padding] == 7).all()
    assert not batch.weights_BL[padding].any()
    assert not batch.answers_BL[padding].any()
    assert (batch.num_tokens, batch.num_examples, batch.indices) == (one + two + three, 3, (0, 1, 2))


def test_document_border() -> None:
    """A row whose first token weighs something by mistake does not teach across the border."""
    examples = examples_of([4, 4])
    examples.weights[:] = 1.0
    batch = collate([list(examples)], pad_token_id=0)
    assert batch.weights_BL.tolist() == [[0, 1, 1, 1, 0, 1, 1, 1]]


def test_pad_is_eos() -> None:
    examples = examples_of([6, 3])
    examples.token_ids[5] = 7  # the end of turn of the first row is the padding token
    batch = collate([[example] for example in examples], pad_token_id=7)
    assert batch.weights_BL[0, 5] == 1
    assert batch.document_ids_BL[0, 5] == 1
    assert batch.document_ids_BL[1].tolist() == [1, 1, 1, 0, 0, 0]


def test_packed_rows_hold_at_most_max_length() -> None:
    for step in steps(train(packing=True, batch_size=53), 2):
        for batch in step:
            assert batch.input_ids_BL.shape[1] <= 64
        assert sum(len(batch.input_ids_BL) for batch in step) <= 1.1 * sum(LENGTHS) / 64 + 1
    assert any(batch.packed for batch in steps(train(packing=True), 1)[0])


def test_packing_leaves_no_process_without_documents() -> None:
    examples = examples_of([5, 6, 7, 8])
    parts = [steps(train(examples, packing=True, num_processes=3, process_index=one), 1)[0] for one in range(3)]
    assert all(drawn(part) for part in parts)


@pytest.mark.parametrize("how", [{}, {"packing": True}, {"batch_tokens": 150}, {"source_weights": (3.0, 1.0)}])
@pytest.mark.parametrize("stop", [0, 3, 7, 9])
def test_resume(how: dict[str, Any], stop: int) -> None:
    examples = examples_of(LENGTHS, sources=[number % 2 for number in range(53)])
    whole = steps(train(examples, **how), 16)
    before = train(examples, **how)
    steps(before, stop)
    state = json.loads(json.dumps(before.state_dict()))
    after = train(examples, **how)
    after.load_state_dict(state)
    for expected, step in zip(whole[stop:], steps(after, 16 - stop), strict=True):
        for one, other in zip(expected, step, strict=True):
            assert_equal(one, other)


def test_the_state_names_the_next_step_while_one_is_worked_on() -> None:
    source = train()
    running = iter(source)
    next(running)
    assert (source.state_dict()["epoch"], source.state_dict()["step"]) == (0, 1)
    for _ in range(6):
        next(running)
    assert (source.state_dict()["epoch"], source.state_dict()["step"]) == (1, 0)


def test_resuming_on_other_data_is_refused_with_the_difference() -> None:
    state = train().state_dict()
    with pytest.raises(DataError, match=r"num_examples was 53, now 2.*Start afresh"):
        train(examples_of([4, 5])).load_state_dict(state)
    train(micro_batch_size=1, num_processes=2).load_state_dict(state)
    edited = examples_of(LENGTHS)
    edited.token_ids[7] += 1
    with pytest.raises(DataError, match=r"contents was .*Start afresh"):
        train(edited).load_state_dict(state)


def test_worst_batch_is_the_longest_that_can_come() -> None:
    source = train(micro_batch_size=3)
    widest = max(batch.input_ids_BL.numel() for step in steps(train(micro_batch_size=3), 30) for batch in step)
    worst = source.worst_batch(3)
    assert worst.input_ids_BL.shape == (3, max(LENGTHS))
    assert worst.input_ids_BL.numel() >= widest
    assert torch.equal(source.worst_batch().input_ids_BL, worst.input_ids_BL)
    by_tokens = train(micro_batch_tokens=200)
    assert by_tokens.worst_batch().input_ids_BL.shape == (200 // max(LENGTHS), max(LENGTHS))
    assert (source.rows_per_step, len(source.worst_batch(100).input_ids_BL)) == (8, 8)
    assert train(num_processes=3).rows_per_step == 3
    packed = train(packing=True)
    assert packed.worst_batch(2).input_ids_BL.shape == (2, 64)
    assert packed.rows_per_step == max(sum(len(batch.input_ids_BL) for batch in step) for step in steps(packed, 7))


def test_source_weights_give_each_source_its_share() -> None:
    sources = np.array([0] * 10 + [1] * 90, np.int32)
    order = epoch_order(100, seed=0, epoch=0, sources_N=sources, source_weights=(0.4, 0.6))
    assert np.bincount(sources[order]).tolist() == [40, 60]
    # Ten rows repeat four times each; of ninety, sixty come, each once.
    assert np.bincount(order, minlength=100)[:10].tolist() == [4] * 10
    assert np.bincount(order, minlength=100)[10:].max() == 1


def test_rows_that_rested_come_in_the_next_epoch() -> None:
    sources = np.array([0] * 10 + [1] * 90, np.int32)
    orders = [epoch_order(100, seed=0, epoch=epoch, sources_N=sources, source_weights=(0.55, 0.45)) for epoch in (0, 1)]
    counts = np.bincount(np.concatenate(orders), minlength=100)
    assert counts[10:].tolist() == [1] * 90
    assert counts[:10].tolist() == [11] * 10


def test_shares_add_up_to_the_rows() -> None:
    sources = np.array([0, 1, 2] * 5, np.int32)
    for weights in ((1, 1, 1), (1, 2, 4), (0.1, 0.1, 0.7)):
        order = epoch_order(15, seed=1, epoch=3, sources_N=sources, source_weights=weights)
        shares = np.bincount(sources[order], minlength=3)
        assert shares.sum() == 15
        assert np.abs(shares - np.array(weights) / sum(weights) * 15).max() < 1


@pytest.mark.parametrize("num_processes", [1, 2, 3, 64])
@pytest.mark.parametrize("size", [{"rows_per_batch": 4}, {"tokens_per_batch": 100}])
def test_sampler_over_processes(num_processes: int, size: dict[str, int]) -> None:
    """Each held-out row counts once, however many processes share them."""
    parts = [
        evaluation_batches(EXAMPLES, **size, pad_token_id=0, process_index=one, num_processes=num_processes)
        for one in range(num_processes)
    ]
    assert len({len(part) for part in parts}) == 1
    assert drawn([batch for part in parts for batch in part]) == list(range(53))
    num_answers = sum(int(batch.answers_BL.sum()) for part in parts for batch in part)
    assert num_answers == EXAMPLES.answers.sum()
    weight = sum(float(batch.weights_BL.sum(dtype=torch.float64)) for part in parts for batch in part)
    assert weight == pytest.approx(float(EXAMPLES.weights.sum(dtype=np.float64)))


def test_held_out_rows_go_together_by_tokens_with_little_padding() -> None:
    batches = evaluation_batches(EXAMPLES, tokens_per_batch=100, pad_token_id=0)
    assert all(batch.input_ids_BL.numel() <= 100 or len(batch.input_ids_BL) == 1 for batch in batches)
    assert sum(batch.input_ids_BL.numel() for batch in batches) < 1.1 * sum(LENGTHS)
