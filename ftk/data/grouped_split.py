"""Rows dealt to parts of given sizes: drawn by a seed, stratified, and with groups that are never torn.

Shapes: N rows, G groups, S strata.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.int64]


def draw_parts(
    sizes: Sequence[int], *, seed: int, strata_N: Numbers | None = None, groups_N: Numbers | None = None, num_rows: int
) -> Numbers:
    """For each row the part that it falls into, [N]: 1 is the first of `sizes`, 0 what is left.

    A part has exactly its size wherever whole groups add up to it, else the nearest size that they reach. Each stratum
    gives its share of every part, to less than one row where rows are their own groups; a group counts for the stratum
    of most of its rows. The first part does not depend on how many follow.
    """
    group_of_N = _numbered(groups_N) if groups_N is not None else np.arange(num_rows)
    num_groups = int(group_of_N.max()) + 1
    size_G = np.bincount(group_of_N, minlength=num_groups)
    strata_G = np.zeros(num_groups, np.int64) if strata_N is None else _majority(group_of_N, strata_N)
    part_G = np.zeros(num_groups, np.int64)
    for part, size in enumerate(sizes, start=1):
        rng = np.random.default_rng([seed, part])
        for groups in _drawn(size, size_G, strata_G, np.flatnonzero(part_G == 0), rng):
            part_G[groups] = part
    return part_G[group_of_N]


def apportion(total: int, sizes_S: Numbers, rng: np.random.Generator) -> Numbers:
    """Whole shares of `total` in proportion to `sizes_S`, none above its size.

    What rounding down leaves goes to the largest remainders, by lot among equal ones.

    Source: the method of largest remainders (Hamilton).
    """
    exact_S = total * sizes_S / sizes_S.sum()
    shares_S: Numbers = np.floor(exact_S + 1e-9).astype(np.int64)
    lot_S = rng.permutation(len(sizes_S))
    order_S = np.lexsort((lot_S, -np.round(exact_S - shares_S, 9)))
    shares_S[order_S[: total - int(shares_S.sum())]] += 1
    return shares_S


def _drawn(size: int, size_G: Numbers, strata_G: Numbers, left: Numbers, rng: np.random.Generator) -> list[Numbers]:
    """The groups of one part, by stratum; what a stratum misses of its share the next one makes up for."""
    strata, members = np.unique(strata_G[left], return_inverse=True)
    rows_S = np.bincount(members, weights=size_G[left]).astype(np.int64)
    shares_S = apportion(size, rows_S, rng)
    largest_S = [int(size_G[left][members == one].max()) for one in range(len(strata))]
    missing = 0
    found = []
    # Small groups last: they can make up for what large ones miss.
    for one in sorted(range(len(strata)), key=lambda stratum: -largest_S[stratum]):
        groups = rng.permutation(left[members == one])
        wanted = min(max(int(shares_S[one]) + missing, 0), int(rows_S[one]))
        chosen = groups[_choose(size_G[groups], wanted)]
        missing += int(shares_S[one] - size_G[chosen].sum())
        found.append(chosen)
    return found


def _choose(sizes: Numbers, wanted: int) -> NDArray[np.bool_]:
    """Which groups, in this order and by these sizes, have together as nearly as possible `wanted` rows.

    They are taken in their order wherever they fit; only where the last rows cannot be had so, sizes are chosen first.
    """
    if (sizes == 1).all():
        return np.arange(len(sizes)) < wanted
    chosen = np.zeros(len(sizes), np.bool_)
    left = wanted
    for place, size in enumerate(sizes.tolist()):
        if size <= left:
            chosen[place] = True
            left -= size
            if not left:
                return chosen
    return _choose_by_sizes(sizes, wanted)


def _choose_by_sizes(sizes: Numbers, wanted: int) -> NDArray[np.bool_]:
    """The sum nearest to `wanted` that can be had: the classic subset sum, over bundles of equal sizes.

    A bit of `reachable` is set for each sum; bundles of 1, 2, 4, ... groups of one size keep their number small.
    """
    bundles: list[tuple[int, int]] = []
    for size, count in zip(*(part.tolist() for part in np.unique(sizes, return_counts=True)), strict=True):
        step = 1
        while count:
            bundles.append((size, min(step, count)))
            count -= bundles[-1][1]
            step *= 2
    mask = (1 << (wanted + int(sizes.max()) + 1)) - 1
    reachable = [1]
    for size, number in bundles:
        reachable.append((reachable[-1] | reachable[-1] << size * number) & mask)
    total = _nearest(reachable[-1], wanted)
    take: dict[int, int] = {}
    for (size, number), before in zip(reversed(bundles), reversed(reachable[:-1]), strict=True):
        if not before >> total & 1:
            take[size] = take.get(size, 0) + number
            total -= size * number
    chosen = np.zeros(len(sizes), np.bool_)
    for size, number in take.items():
        chosen[np.flatnonzero(sizes == size)[:number]] = True
    return chosen


def _nearest(reachable: int, wanted: int) -> int:
    """The set bit nearest to `wanted`; of two, the lower one."""
    below = (reachable & ((1 << wanted + 1) - 1)).bit_length() - 1
    above = reachable >> wanted
    if not above:
        return below
    distance = (above & -above).bit_length() - 1
    return wanted + distance if distance < wanted - below else below


def _numbered(values_N: Numbers) -> Numbers:
    """From 0 in the order of the first row of each."""
    _, first, inverse_N = np.unique(values_N, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse_N]


def _majority(group_of_N: Numbers, strata_N: Numbers) -> Numbers:
    """Stratum of most rows of each group, [G]; of equal ones the lowest number."""
    pairs, counts = np.unique(np.stack([group_of_N, strata_N]), axis=1, return_counts=True)
    order = np.lexsort((-pairs[1], counts, pairs[0]))
    majority_G = np.empty(int(group_of_N.max()) + 1, np.int64)
    majority_G[pairs[0][order]] = pairs[1][order]
    return majority_G
