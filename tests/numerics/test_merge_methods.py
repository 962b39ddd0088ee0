"""Each merge method against its equation written out slowly in float64, and what is random by its expectation."""

import math

import pytest
import torch
from merge_methods import DENSITIES, WEIGHTS, close, merged, models
from torch import Tensor

from ftk.merging.chunks import CHUNK


def slow_trim(change: Tensor, density: float) -> Tensor:
    kept = torch.zeros_like(change).flatten()
    order = sorted(range(change.numel()), key=lambda index: -abs(float(change.flatten()[index])))
    for index in order[: max(1, int(density * change.numel()))]:
        kept[index] = change.flatten()[index]
    return kept.view_as(change)


def slow_middle(change: Tensor, density: float, gamma: float) -> Tensor:
    count = change.numel()
    kept = torch.zeros_like(change).flatten()
    order = sorted(range(count), key=lambda index: abs(float(change.flatten()[index])))
    start = max(0, count - int(density * count) - int(gamma * count))
    for index in order[start : start + int(density * count)]:
        kept[index] = change.flatten()[index]
    return kept.view_as(change)


def slow_election(changes: list[Tensor], weights: list[float], *, normalize: bool) -> Tensor:
    result = torch.zeros_like(changes[0]).flatten()
    for index in range(result.numel()):
        weighted = [w * float(change.flatten()[index]) for w, change in zip(weights, changes, strict=True)]
        sign = 1 if sum(weighted) >= 0 else -1
        agreeing = [(x, w) for x, w in zip(weighted, weights, strict=True) if x * sign > 0]
        divisor = sum(w for _, w in agreeing) if normalize else 1
        result[index] = sum(x for x, _ in agreeing) / (divisor or 1)
    return result.view_as(changes[0])


GAMMAS = [0.05, 0.1, 0.3]


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("weights", [WEIGHTS, [0.5, -0.3, 0.4]])
def test_ties_equals_its_equation(weights: list[float], normalize: bool) -> None:
    base, *others = models()
    changes = [slow_trim(other - base, density) for other, density in zip(others, DENSITIES, strict=True)]
    expected = base + 0.7 * slow_election(changes, weights, normalize=normalize)
    parameters = {"weight": weights, "density": DENSITIES}
    close(merged("ties", others, base, model=parameters, normalize=normalize, **{"lambda": 0.7}), expected)


def test_ties_rescaled_keeps_the_sum_of_magnitudes() -> None:
    base, other = models(1)
    result = merged("ties", [other], base, model={"weight": 1.0, "density": 0.3}, rescale=True)
    assert float((result - base).abs().sum()) == pytest.approx(float((other - base).abs().sum()), rel=1e-12)


@pytest.mark.parametrize("name", ["breadcrumbs", "breadcrumbs_ties"])
def test_breadcrumbs_equal_their_equation(name: str) -> None:
    base, *others = models()
    changes = [slow_middle(o - base, d, g) for o, d, g in zip(others, DENSITIES, GAMMAS, strict=True)]
    plain = WEIGHTS[0] * changes[0] + WEIGHTS[1] * changes[1] + WEIGHTS[2] * changes[2]
    expected = base + (plain if name == "breadcrumbs" else slow_election(changes, WEIGHTS, normalize=False))
    close(merged(name, others, base, model={"weight": WEIGHTS, "density": DENSITIES, "gamma": GAMMAS}), expected)


@pytest.mark.parametrize("by_row", [True, False])
def test_model_stock_equals_its_equation(by_row: bool) -> None:
    base, *others = models()
    rows = [base, *others] if by_row else [tensor.reshape(1, -1) for tensor in (base, *others)]
    expected = rows[0].clone()
    for r in range(len(expected)):
        offsets = [row[r] - rows[0][r] for row in rows[1:]]
        pairs = [(a, b) for i, a in enumerate(offsets) for b in offsets[i + 1 :]]
        cosine = sum(float(a @ b / (a.norm() * b.norm())) for a, b in pairs) / len(pairs)
        t = 3 * cosine / (1 + 2 * cosine)
        expected[r] = t * (rows[1][r] + rows[2][r] + rows[3][r]) / 3 + (1 - t) * rows[0][r]
    close(merged("model_stock", others, base, filter_wise=by_row), expected.view_as(base))


def test_multislerp_equals_the_walk_through_the_tangent_space() -> None:
    """The walk as it is told, without the shortcut that its middle part is zero."""
    _, *others = models()
    lengths = [tensor.norm() for tensor in others]
    units = [tensor / length for tensor, length in zip(others, lengths, strict=True)]
    shares = [weight / sum(WEIGHTS) for weight in WEIGHTS]
    mean = torch.stack([share * unit for share, unit in zip(shares, units, strict=True)]).sum(0)
    mean = mean / mean.norm()
    tangents = [share * (unit - (unit * mean).sum() * mean) for share, unit in zip(shares, units, strict=True)]
    step = torch.stack(tangents).sum(0)
    size = step.norm() + 1e-8
    on_sphere = mean * torch.cos(size) + step * (torch.sin(size) / size)
    expected = on_sphere * torch.stack([s * length for s, length in zip(shares, lengths, strict=True)]).sum()
    torch.testing.assert_close(merged("multislerp", others, model={"weight": WEIGHTS}), expected, rtol=1e-7, atol=1e-7)


def test_sce_equals_its_equations() -> None:
    base, *others = models()
    changes = torch.stack([other - base for other in others])
    variances = changes.var(0, unbiased=False)
    kept = variances >= variances.flatten().sort(descending=True).values[int(0.4 * variances.numel()) - 1]
    changes = changes * kept
    squares = changes.square().sum((1, 2))
    shares = (squares / squares.sum())[:, None, None]
    agreeing = torch.sign(changes) == torch.where(changes.sum(0) >= 0, 1, -1)
    expected = base + (shares * changes * agreeing).sum(0) / (shares * agreeing).sum(0).clamp_min(1e-6)
    close(merged("sce", others, base, select_topk=0.4), expected)


def test_arcee_fusion_equals_its_equation() -> None:
    base, other = models(1)
    p, q = other.softmax(-1) + 1e-8, base.softmax(-1) + 1e-8
    importance = (other - base).abs() * (p * (p / q).log()).sum(-1, keepdim=True)
    ordered = importance.flatten().sort().values
    lower, median, upper = (float(ordered[int(share * (len(ordered) - 1))]) for share in (0.25, 0.5, 0.75))
    expected = torch.where(importance >= median + 1.5 * (upper - lower), other, base)
    assert 0 < int((expected != base).sum()) < base.numel()
    close(merged("arcee_fusion", [other], base), expected)


@pytest.mark.parametrize("name", ["dare_linear", "dare_ties", "della_linear", "della"])
def test_random_methods_keep_their_share_and_their_expectation(name: str) -> None:
    base = torch.zeros(400, 500)
    change = torch.full_like(base, 0.5) if name.startswith("dare") else torch.rand(400, 500) + 0.5
    result = merged(name, [change], base, model={"weight": 1.0, "density": 0.3, "epsilon": 0.1}, normalize=False)
    kept = float((result != 0).float().mean())
    assert kept == pytest.approx(0.3, abs=5 * math.sqrt(0.3 * 0.7 / base.numel()))
    assert float(result.mean()) == pytest.approx(float(change.mean()), rel=0.02)


def test_dare_divides_by_the_density_and_is_reproducible() -> None:
    base, *others = models()
    once, again, otherwise = (
        merged("dare_ties", others, base, model={"weight": WEIGHTS, "density": 0.5}, seed=seed) for seed in (1, 1, 2)
    )
    assert torch.equal(once, again)
    assert not torch.equal(once, otherwise)
    alone = merged("dare_linear", others[:1], base, model={"weight": 1.0, "density": 0.25}) - base
    close(alone, torch.where(alone.abs() > 1e-9, 4 * (others[0] - base), 0))


def test_every_chunk_and_every_model_has_draws_of_its_own() -> None:
    ones = torch.ones(2 * CHUNK)
    one, other = (
        merged("dare_linear", [ones, ones], torch.zeros_like(ones), model={"weight": weights, "density": 0.5}) != 0
        for weights in ([1.0, 0.0], [0.0, 1.0])
    )
    for first, second in ((one[:CHUNK], one[CHUNK:]), (one, other)):
        assert float((first == second).float().mean()) == pytest.approx(0.5, abs=0.01)


def test_della_keeps_large_changes_more_often() -> None:
    rows = torch.arange(1.0, 11).repeat(20_000, 1)
    kept = (
        merged("della_linear", [rows], torch.zeros_like(rows), model={"weight": 1.0, "density": 0.5, "epsilon": 0.3})
        != 0
    )
    chances = torch.linspace(0.2, 0.8, 10)
    torch.testing.assert_close(kept.float().mean(0), chances, rtol=0, atol=5 * 0.5 / math.sqrt(len(rows)))
