"""Sums over completions are those that anyone can take by hand, packed or not."""

import torch
from data_stand_in import examples_of
from trees_stand_in import tree

from ftk.core.types import Batch
from ftk.data.collate import collate, idle_batch
from ftk.numerics.completions import completion_lengths, completion_sums

ONE = tree([1, 2, 3], [4, 5], [6, 7, 8])
TWO = tree([9], [10], [11], index=1)


def values_of(batch: Batch) -> torch.Tensor:
    """Each token's own number."""
    return batch.input_ids_BL.float()


def test_sums_and_lengths_by_hand() -> None:
    for rows in ([[ONE], [TWO]], [[ONE, TWO]], [[TWO, ONE], [TWO]]):
        batch = collate(rows, pad_token_id=50)
        order = [example for row in rows for example in row]
        sums = completion_sums(values_of(batch), batch, num_branches=2)
        assert sums.tolist() == [[9.0, 21.0] if example is ONE else [10.0, 11.0] for example in order]
        assert sums.dtype == torch.float32
        lengths = completion_lengths(batch, num_branches=2)
        assert lengths.tolist() == [[2.0, 3.0] if example is ONE else [1.0, 1.0] for example in order]


def test_turns_of_others_within_a_completion_do_not_count() -> None:
    batch = collate([[ONE]], pad_token_id=0)
    batch.weights_BL[0, 6] = 0
    assert completion_lengths(batch, num_branches=2).tolist() == [[2.0, 2.0]]


def test_one_completion_and_what_lies_aside() -> None:
    batch = collate([[tree([1, 2], [3, 4, 5], [6], branches=[1, -1])], [tree([7], [8], [9], branches=[1, -1])]],
                    pad_token_id=0)  # fmt: skip
    assert completion_sums(values_of(batch), batch, num_branches=1).tolist() == [[12.0], [8.0]]
    assert batch.aside is not None
    assert completion_sums(values_of(batch.aside), batch.aside, num_branches=1).tolist() == [[6.0], [9.0]]
    assert completion_lengths(batch.aside, num_branches=1).tolist() == [[1.0], [1.0]]


def test_packed_single_completions_keep_their_documents() -> None:
    batch = collate([[tree([1, 2], [3]), tree([7], [8, 9])], [tree([4], [5])]], pad_token_id=0)
    assert batch.branches_BL is None
    assert completion_sums(values_of(batch), batch, num_branches=1).tolist() == [[3.0], [17.0], [5.0]]


def test_a_plain_answer_is_a_completion() -> None:
    batch = collate([list(examples_of([4, 6]))], pad_token_id=0)
    assert completion_sums(values_of(batch), batch, num_branches=1).tolist() == [[2.0 + 3], [103.0 + 104 + 105]]


def test_an_idle_row_sums_to_zero_and_still_takes_a_gradient() -> None:
    for example in (ONE, tree([1, 2], [3], [4], branches=[1, -1])):
        idle = idle_batch(example)
        values_BL = values_of(idle).requires_grad_()
        sums = completion_sums(values_BL, idle, num_branches=2)
        assert sums.tolist() == [[0.0, 0.0]]
        (gradient,) = torch.autograd.grad(sums.sum(), values_BL)
        assert not gradient.any()
        assert completion_lengths(idle, num_branches=2).tolist() == [[1.0, 1.0]], "a mean over no tokens is a number"


def test_each_token_gets_the_gradient_of_its_completion_alone() -> None:
    batch = collate([[ONE, TWO]], pad_token_id=0)
    values_BL = values_of(batch).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda values: completion_sums(values, batch, num_branches=2), values_BL)
    factors_NK = torch.tensor([[2.0, 3.0], [5.0, 7.0]], dtype=torch.float64)
    sums = completion_sums(values_BL, batch, num_branches=2)
    (gradient,) = torch.autograd.grad((sums * factors_NK).sum(), values_BL)
    assert gradient[0].tolist() == [0, 0, 0, 2, 2, 3, 3, 3, 0, 5, 7]


def test_long_sums_keep_the_digits_that_their_difference_is_made_of() -> None:
    length = 900
    batch = collate([[tree([1], [2] * length, [2] * length)]] * 20, pad_token_id=0)
    values_BL = torch.rand(batch.input_ids_BL.shape, generator=torch.Generator().manual_seed(0)) - 3
    exact_NK = values_BL[:, 1:].double().view(20, 2, length).sum(-1).float()
    assert torch.equal(completion_sums(values_BL, batch, num_branches=2), exact_NK)
