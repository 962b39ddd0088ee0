"""The learning rate depends on step and total alone."""

import math

import pytest
from transformers import get_cosine_schedule_with_warmup, get_linear_schedule_with_warmup

from ftk.train.schedules import Constant, Cosine, Linear, Wsd
from ftk.train.settings import Training


def curve(schedule, total):
    return [schedule.factor(step, total) for step in range(1, total + 1)]


@pytest.mark.parametrize("schedule", [Cosine(), Linear(), Constant(warmup_steps=4), Wsd(), Wsd(decay="linear")])
@pytest.mark.parametrize("total", [1, 2, 30, 1000])
def test_factors_are_positive_and_reach_the_peak_once_warm(schedule, total):
    factors = curve(schedule, total)
    assert all(0 < factor <= 1 for factor in factors)
    assert max(factors) == pytest.approx(1.0) or total < 5


def test_scheduler_is_a_function_of_the_step_asked_in_any_order():
    """known_bugs: scheduler. Asking twice, or for another step first, changes nothing."""
    schedule = Cosine(warmup_steps=3)
    forwards = curve(schedule, 20)
    assert [schedule.factor(step, 20) for step in range(20, 0, -1)] == forwards[::-1]
    assert schedule.factor(7, 20) == schedule.factor(7, 20)


def test_warmup_rises_in_even_steps():
    assert curve(Constant(warmup_steps=3), 6) == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1])


def test_fixed_points():
    cosine = Cosine(warmup_ratio=0, min_ratio=0.1)
    assert cosine.factor(1, 8) == 1
    assert cosine.factor(5, 8) == pytest.approx(0.1 + 0.9 / 2)
    assert Linear(warmup_ratio=0, min_ratio=0.2).factor(6, 10) == pytest.approx(0.6)
    wsd = Wsd(warmup_ratio=0, decay_steps=4)
    assert curve(wsd, 8) == pytest.approx([1, 1, 1, 1, 1, 0.5, 1 - math.sqrt(0.5), 1 - math.sqrt(0.75)])


@pytest.mark.parametrize(
    ("schedule", "reference"),
    [
        (Cosine(warmup_ratio=0), get_cosine_schedule_with_warmup),
        (Linear(warmup_ratio=0), get_linear_schedule_with_warmup),
    ],
)
def test_without_warmup_it_is_that_of_transformers(schedule, reference):
    import torch

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    other = reference(optimizer, 0, 12)
    for step in range(1, 13):
        assert schedule.factor(step, 12) == pytest.approx(other.get_last_lr()[0])
        optimizer.step()
        other.step()


def test_steps_win_over_ratio():
    assert Cosine(warmup_ratio=0.5, warmup_steps=1).factor(2, 10) == 1.0


def test_a_word_or_a_mapping_names_it():
    assert isinstance(Training(schedule="wsd").schedule, Wsd)
    assert Training(schedule={"warmup_ratio": 0.2}).schedule == Cosine(warmup_ratio=0.2)
