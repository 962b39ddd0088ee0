"""Each merge method by hand on a few numbers, and against its equation written out slowly in float64."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor

from ftk.merging.chunks import CHUNK
from ftk.merging.method import MergeError
from ftk.merging.methods import MergeMethod

METHODS: TypeAdapter[Any] = TypeAdapter(MergeMethod)


def merged(
    name: str, tensors: list[Tensor], base: Tensor | None = None, *, seed: int = 0, model: Any = None, **settings: Any
) -> Tensor:
    """By the method of this name; `model` has a list of values a parameter, or one value for all models."""
    method = METHODS.validate_python({"name": name, **settings})
    given = {
        key: value for key, value in method.model_dump(by_alias=True).items() if key != "name" and value is not None
    }
    parameters = []
    for index in range(len(tensors)):
        chosen = {one.name: (model or {}).get(one.name, one.default) for one in method.per_model}
        parameters.append({key: value[index] if isinstance(value, list) else value for key, value in chosen.items()})
    method.check(parameters=parameters, settings=given, has_base=base is not None)
    before = [tensor.clone() for tensor in (*tensors, *([] if base is None else [base]))]
    result: Tensor = method.merge(
        tensors, base=base, parameters=parameters, settings=given, generator=torch.Generator().manual_seed(seed)
    )
    after = [*tensors, *([] if base is None else [base])]
    assert all(torch.equal(old, new) for old, new in zip(before, after, strict=True)), "an input was written to"
    return result


def numbers(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def models(count: int = 3, shape: tuple[int, ...] = (23, 31), dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """A base, and `count` models near it."""
    generator = torch.Generator().manual_seed(7)
    base = torch.randn(shape, generator=generator, dtype=torch.float64)
    others = [base + 0.3 * torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(count)]
    return [tensor.to(dtype) for tensor in (base, *others)]


def close(result: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(result, expected, rtol=1e-12, atol=1e-12)


# By hand.


def test_linear_by_hand() -> None:
    two = [numbers(1, 2), numbers(3, 6)]
    close(merged("linear", two, model={"weight": [1.0, 3.0]}), numbers(2.5, 5))
    close(merged("linear", two, model={"weight": [1.0, 3.0]}, normalize=False), numbers(10, 20))


def test_slerp_between_axes_goes_along_the_circle() -> None:
    third = merged("slerp", [numbers(0, 1)], numbers(1, 0), t=1 / 3)
    close(third, numbers(math.cos(math.pi / 6), math.sin(math.pi / 6)))


def test_slerp_of_three_takes_each_by_its_share_so_far() -> None:
    """Two axes meet at 45 degrees; from there a third of the way to the third axis, which is 90 degrees off."""
    result = merged("slerp", [numbers(1, 0, 0), numbers(0, 1, 0), numbers(0, 0, 1)])
    half, third = math.sqrt(0.5), math.pi / 6
    close(result, numbers(half * math.cos(third), half * math.cos(third), math.sin(third)))


def test_slerp_of_collinear_tensors_is_a_line() -> None:
    close(merged("slerp", [numbers(4, 8)], numbers(1, 2), t=0.5), numbers(2.5, 5))
    close(
        merged("slerp", [numbers(0, 0)], numbers(1, 2), t=0.25),
        numbers(math.cos(math.pi / 8), 2 * math.cos(math.pi / 8)),
    )


def test_slerp_takes_a_line_from_a_cosine_of_0_9995() -> None:
    for cosine in (0.9996, 0.9994):
        angle = math.acos(cosine)
        result = merged("slerp", [numbers(math.cos(angle), math.sin(angle))], numbers(1, 0), t=0.5)
        expected = math.cos(angle / 2) if cosine > 0.9995 else 1.0
        assert float(result.norm()) == pytest.approx(expected, abs=1e-12)


def test_slerp_of_kin_takes_its_angle_in_float64() -> None:
    """In float32 the cosine of kin, near 1, puts the angle 1e-5 off, and a hundred times as many values round apart."""
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(400, 500, generator=generator)
    first, second = ((base + 0.1 * torch.randn(base.shape, generator=generator)).bfloat16() for _ in range(2))
    x, y = first.double().flatten(), second.double().flatten()
    angle = torch.acos(x @ y / (x.norm() * y.norm()))
    exact = (torch.sin(0.8 * angle) * x + torch.sin(0.2 * angle) * y) / torch.sin(angle)
    result = merged("slerp", [second], first, t=0.2)
    assert float((result.flatten() != exact.bfloat16()).float().mean()) < 5e-4


def test_nuslerp_by_rows_columns_and_whole() -> None:
    first, second = numbers(1, 0, 0, 1).view(2, 2), numbers(0, 1, 0, 1).view(2, 2)
    weights = {"weight": [1.0, 1.0]}
    half = math.sqrt(0.5)
    rows = merged("nuslerp", [first, second], model=weights, nuslerp_flatten=False)
    close(rows, numbers(half, half, 0, 1).view(2, 2))
    whole = merged("nuslerp", [first, second], model=weights)
    sixth = 1 / (2 * math.cos(math.pi / 6))  # 60 degrees apart: both weights are sin 30 / sin 60
    close(whole, numbers(sixth, sixth, 0, 2 * sixth).view(2, 2))
    columns = merged("nuslerp", [first.T, second.T], model=weights, nuslerp_flatten=False, nuslerp_row_wise=True)
    close(columns, rows.T)


@pytest.mark.parametrize("name", ["multislerp", "karcher"])
def test_the_mean_of_axes_on_the_sphere_is_the_diagonal(name: str) -> None:
    axes = [*(2 * torch.eye(3, dtype=torch.float64))]
    torch.testing.assert_close(
        merged(name, axes, model={"weight": 1.0}), torch.full((3,), 2 / math.sqrt(3), dtype=torch.float64)
    )


def test_karcher_of_two_is_slerp_at_the_middle() -> None:
    first, second = numbers(1, 0.2, 0), numbers(0, 1, 0.5)
    first, second = first / first.norm(), second / second.norm()
    close(merged("karcher", [first, second]), merged("slerp", [second], first, t=0.5))


def test_karcher_mean_has_no_gradient() -> None:
    """At the mean, the weighted sum of the logarithms of all directions is zero: that defines it."""
    units = [tensor.flatten() / tensor.norm() for tensor in models(4)[1:]]
    units.append(torch.roll(units[0], 5))
    mean = merged("karcher", units, model={"weight": [1.0, 2.0, 0.5, 1.5, 1.0]}, max_iter=200, tol=1e-12)
    mean = mean / mean.norm()
    angles = [torch.acos(unit @ mean) for unit in units]
    pulls = [angle / angle.sin() * (unit - (unit @ mean) * mean) for angle, unit in zip(angles, units, strict=True)]
    total = sum(weight * pull for weight, pull in zip([1.0, 2.0, 0.5, 1.5, 1.0], pulls, strict=True))
    assert float(torch.as_tensor(total).norm()) < 1e-7


def test_task_arithmetic_adds_and_subtracts() -> None:
    base = numbers(1, 1)
    two = [numbers(2, 1), numbers(1, 4)]
    close(merged("task_arithmetic", two, base, model={"weight": [1.0, -0.5]}), numbers(2, -0.5))
    weights = {"weight": [1.0, 3.0]}
    close(merged("task_arithmetic", two, base, model=weights, normalize=True, **{"lambda": 2.0}), numbers(1.5, 5.5))


def test_ties_by_hand() -> None:
    """Trimmed to half: [4, 0, -3, 0] and [-2, 0, 5, 0]; signs + and + are elected; each has one model left."""
    base = numbers(1, 1, 1, 1)
    changes = [numbers(4, 1, -3, 2), numbers(-2, 1, 5, 1)]
    close(
        merged("ties", [base + change for change in changes], base, model={"weight": 1.0, "density": 0.5}),
        base + numbers(4, 0, 5, 0),
    )


def test_ties_divides_by_the_weights_that_agree() -> None:
    base = numbers(0, 0)
    result = merged("ties", [numbers(1, 2), numbers(4, -8)], base, model={"weight": [1.0, 3.0]})
    close(result, numbers((1 + 12) / 4, -8))


def test_of_equal_changes_the_first_are_kept() -> None:
    ones = [torch.ones(8, dtype=torch.bfloat16)]
    result = merged("ties", ones, torch.zeros(8, dtype=torch.bfloat16), model={"weight": 1.0, "density": 0.4})
    assert result.tolist() == [1, 1, 1, 0, 0, 0, 0, 0]


def test_breadcrumbs_drop_both_ends() -> None:
    changes = numbers(1, -10, 3, 4, -5, 6, 7, 8, -9, 2)
    result = merged(
        "breadcrumbs", [changes], torch.zeros_like(changes), model={"weight": 1.0, "density": 0.5, "gamma": 0.2}
    )
    close(result, numbers(0, 0, 0, 4, -5, 6, 7, 8, 0, 0))
    model = {"weight": 1.0, "density": 0.9, "gamma": 0.2}
    close(
        merged("breadcrumbs", [changes], torch.zeros_like(changes), model=model), changes.masked_fill(changes == -10, 0)
    )


def test_model_stock_of_equal_and_of_right_angled_changes() -> None:
    base = numbers(1, 1)
    close(merged("model_stock", [base + 1, base + 1], base), base + 1)
    close(merged("model_stock", [base + numbers(1, 0), base + numbers(0, 1)], base), base)
    # 60 degrees: t = 2 * 0.5 / 1.5.
    sixty = [numbers(1, 0), numbers(0.5, math.sqrt(0.75))]
    close(merged("model_stock", [base + one for one in sixty], base), base + 2 / 3 * (sixty[0] + sixty[1]) / 2)


def test_sce_by_hand() -> None:
    """Of four, models differ on three; the two of the largest variance are kept, then the sign of the sum."""
    changes = [numbers(3, 1, 4, 1), numbers(-1, 1, 0, 2)]
    result = merged("sce", changes, torch.zeros(4, dtype=torch.float64), select_topk=0.7)
    close(result, numbers(3, 0, 4, 0))


def test_nearswap_by_hand() -> None:
    base = numbers(1, 1, 1, 1)
    close(merged("nearswap", [base + numbers(0.05, -0.1, 1, -2)], base, t=0.1), base + numbers(0.05, -0.1, 0.1, -0.1))


def test_passthrough_scales_and_keeps_the_tensor_itself_at_one() -> None:
    tensor = numbers(1, 2)
    assert merged("passthrough", [tensor]) is tensor
    close(merged("passthrough", [tensor], model={"scale": 0.5}), numbers(0.5, 1))


# The equations, slowly.


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


WEIGHTS = [0.5, 0.3, 0.4]
DENSITIES = [0.5, 0.2, 0.9]
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


# What is random.


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


# What they have in common.

ON_THREE: dict[str, dict[str, Any]] = {
    "linear": {"model": {"weight": WEIGHTS}},
    "slerp": {"model": {"weight": WEIGHTS}},
    "multislerp": {"model": {"weight": WEIGHTS}},
    "karcher": {},
    "task_arithmetic": {"model": {"weight": WEIGHTS}},
    "ties": {"model": {"weight": WEIGHTS, "density": DENSITIES}},
    "breadcrumbs_ties": {"model": {"weight": WEIGHTS, "density": DENSITIES}},
    "dare_ties": {"model": {"weight": WEIGHTS, "density": DENSITIES}},
    "della": {"model": {"weight": WEIGHTS, "density": 0.5}},
    "model_stock": {},
    "sce": {"select_topk": 0.5},
}


@pytest.mark.parametrize("name", ON_THREE)
def test_chunks_and_threads_do_not_change_the_result(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large tensors go in pieces, several at a time; only draws and the order of sums depend on where pieces begin."""
    base, *others = models(shape=(64, 96))
    given = None if name in ("linear", "slerp", "karcher") else base
    whole = merged(name, others, given, **ON_THREE[name])
    monkeypatch.setattr("ftk.merging.chunks.chunks.__kwdefaults__", {"row_length": 1, "size": 700})
    monkeypatch.setattr("ftk.merging.chunks.each_chunk.__kwdefaults__", {"row_length": 1, "size": 700})
    monkeypatch.setattr("ftk.merging.order_statistics.COUNTED_CHUNK", 1100)
    results = []
    for num_threads in (1, 3):
        monkeypatch.setattr("torch.get_num_threads", lambda found=num_threads: found)
        results.append(merged(name, others, given, **ON_THREE[name]))
    assert torch.equal(results[0], results[1])
    if name not in ("dare_ties", "della"):
        torch.testing.assert_close(results[0], whole, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", ON_THREE)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_half_precision_is_computed_in_float32(name: str, dtype: torch.dtype) -> None:
    """The result is the one in float64, rounded once; elements beside a threshold of half precision apart."""
    base, *others = models(dtype=dtype)
    given = None if name in ("linear", "slerp", "karcher") else base
    result = merged(name, others, given, **ON_THREE[name])
    assert result.dtype == dtype
    wide = [tensor.double() for tensor in others]
    expected = merged(name, wide, None if given is None else base.double(), **ON_THREE[name])
    allowed = torch.finfo(dtype).eps * expected.abs() + 2 * torch.finfo(dtype).eps
    off = ((result.double() - expected).abs() > allowed).double().mean()
    at_thresholds = name in ("ties", "breadcrumbs_ties", "dare_ties", "della", "sce")
    assert off <= (0.01 if at_thresholds else 0)


@pytest.mark.parametrize("name", ON_THREE)
@pytest.mark.parametrize("shape", [(), (1,), (5,), (0,), (2, 3, 4)])
def test_any_shape(name: str, shape: tuple[int, ...]) -> None:
    base, *others = models(shape=shape)
    given = None if name in ("linear", "slerp", "karcher") else base
    result = merged(name, others, given, **ON_THREE[name])
    assert result.shape == shape
    assert bool(result.isfinite().all())


def test_tensors_of_different_dtypes_give_the_widest() -> None:
    base, first, second = models(2)
    result = merged("task_arithmetic", [first.bfloat16(), second.float()], base.half(), model={"weight": 0.5})
    assert result.dtype == torch.float32


WRONG: dict[str, Callable[[], Tensor]] = {
    "sum to zero": lambda: merged("linear", models(2)[1:], model={"weight": [1.0, -1.0]}),
    "give probabilities from 0.8 to 1": lambda: merged(
        "della", models(1)[1:], models(1)[0], model={"weight": 1.0, "density": 0.9, "epsilon": 0.1}
    ),
    "between two models, and there are 4": lambda: merged("slerp", models()[1:], models()[0], t=0.5),
    "on the way": lambda: merged("slerp", models(2)[1:], model={"weight": 0.0}),
    "cancel, so that they have no mean": lambda: merged(
        "multislerp", [numbers(1, 0), numbers(-1, 0), numbers(0, 0)], model={"weight": [1.0, 1.0, 1.0]}
    ),
}


@pytest.mark.parametrize("message", WRONG)
def test_numbers_without_a_result_are_named(message: str) -> None:
    with pytest.raises(MergeError, match=message):
        WRONG[message]()
