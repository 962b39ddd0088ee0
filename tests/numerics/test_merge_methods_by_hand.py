"""Each merge method by hand on a few numbers."""

import math

import pytest
import torch
from merge_methods import close, merged, models, numbers


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
