"""Rows dealt to parts: exact, seeded, stratified, and groups whole."""

from itertools import combinations

import numpy as np
import pytest

from ftk.data.grouped_split import apportion, draw_parts


def counts(parts: np.ndarray, num_parts: int) -> list[int]:
    return np.bincount(parts, minlength=num_parts).tolist()


def test_counts_are_exact_and_seeded() -> None:
    parts = draw_parts([100, 50], seed=0, num_rows=1000)
    assert counts(parts, 3) == [850, 100, 50]
    assert np.array_equal(parts, draw_parts([100, 50], seed=0, num_rows=1000))
    assert not np.array_equal(parts, draw_parts([100, 50], seed=1, num_rows=1000))
    # The evaluation rows stay where a test set is asked for later.
    assert np.array_equal(parts == 1, draw_parts([100], seed=0, num_rows=1000) == 1)


def test_every_row_is_drawn_as_often_as_any_other() -> None:
    drawn = sum(draw_parts([20], seed=seed, num_rows=100) for seed in range(400))
    # Binomial: mean 80, standard deviation 8.
    assert 45 < drawn.min() <= drawn.max() < 115
    assert drawn.sum() == 20 * 400


def test_shares_by_largest_remainders() -> None:
    rng = np.random.default_rng(0)
    # 6, 2.5 and 1.5: one of the equal remainders gets the last row.
    shares = {tuple(apportion(10, np.array([60, 25, 15]), np.random.default_rng(seed)).tolist()) for seed in range(20)}
    assert shares == {(6, 3, 1), (6, 2, 2)}
    assert apportion(7, np.array([1, 1, 1, 97]), rng).tolist() == [0, 0, 0, 7]


def test_strata_have_their_share_in_every_part() -> None:
    strata = np.repeat([0, 1, 2], [700, 203, 97])
    parts = draw_parts([100, 200], seed=3, strata_N=strata, num_rows=1000)
    assert counts(parts, 3) == [700, 100, 200]
    for part, size in ((1, 100), (2, 200)):
        for stratum, rows in ((0, 700), (1, 203), (2, 97)):
            assert abs(((parts == part) & (strata == stratum)).sum() - rows * size / 1000) < 1


@pytest.mark.parametrize("seed", range(10))
def test_groups_are_never_torn_and_counts_stay_exact(seed: int) -> None:
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, 150, 1000) * 7  # sizes near 7, and numbers with gaps
    parts = draw_parts([100, 50], seed=seed, groups_N=groups, num_rows=1000)
    assert all(len(set(parts[groups == group].tolist())) == 1 for group in set(groups.tolist()))
    assert counts(parts, 3) == [850, 100, 50]


def test_the_nearest_size_is_taken_where_groups_do_not_add_up() -> None:
    """Against every subset of a few groups."""
    rng = np.random.default_rng(0)
    for trial in range(60):
        sizes = rng.integers(2, 12, 7)
        groups = np.repeat(np.arange(7), sizes)
        wanted = int(rng.integers(1, sizes.sum()))
        sums = [sum(some) for number in range(8) for some in combinations(sizes.tolist(), number)]
        drawn = int((draw_parts([wanted], seed=trial, groups_N=groups, num_rows=len(groups)) == 1).sum())
        assert abs(drawn - wanted) == min(abs(one - wanted) for one in sums)


def test_groups_within_strata() -> None:
    rng = np.random.default_rng(1)
    groups = np.sort(rng.integers(0, 300, 1000))
    strata = groups % 3
    parts = draw_parts([100], seed=0, groups_N=groups, strata_N=strata, num_rows=1000)
    assert all(len(set(parts[groups == group].tolist())) == 1 for group in set(groups.tolist()))
    assert counts(parts, 2) == [900, 100]
    for stratum in range(3):
        assert abs(((parts == 1) & (strata == stratum)).sum() - (strata == stratum).sum() / 10) <= 2


def test_small_groups_make_up_for_what_large_ones_miss() -> None:
    """Of 60 rows in tens 8 are asked, which no ten gives; single rows of the other stratum fill in."""
    groups = np.concatenate([np.repeat(np.arange(6), 10), np.arange(6, 46)])
    strata = (groups >= 6).astype(np.int64)
    parts = draw_parts([14], seed=0, groups_N=groups, strata_N=strata, num_rows=100)
    assert counts(parts, 2) == [86, 14]


def test_a_group_counts_for_the_stratum_of_most_of_its_rows() -> None:
    groups = np.array([0, 0, 0, 1, 1, 1])
    parts = draw_parts([3], seed=0, groups_N=groups, strata_N=np.array([0, 0, 1, 1, 1, 0]), num_rows=6)
    assert sorted(map(tuple, parts.reshape(2, 3).tolist())) == [(0, 0, 0), (1, 1, 1)]


def test_many_rows_in_a_moment() -> None:
    """A million rows in groups of lognormal sizes: seconds, and 100,000 of them exactly."""
    rng = np.random.default_rng(0)
    sizes = np.maximum(1, rng.lognormal(0.5, 1.0, 400_000).astype(np.int64))
    groups = np.repeat(np.arange(len(sizes)), sizes)[:1_000_000]
    parts = draw_parts([100_000], seed=0, groups_N=groups, num_rows=len(groups))
    assert (parts == 1).sum() == 100_000
