"""Numbers, gradients over layers, and filters by tensor name; mergekit's rules by hand."""

import pytest

from ftk.merging.parameters import Filtered, first_resolved, resolved


def test_a_number_is_the_same_everywhere():
    assert resolved(0.3, tensor="any", depth=0.7) == 0.3


@pytest.mark.parametrize(("depth", "expected"), [(0, 0), (0.125, 0.25), (0.25, 0.5), (0.5, 0.3), (0.75, 0.7), (1, 1)])
def test_a_gradient_has_straight_lines_between_its_points(depth, expected):
    assert resolved((0, 0.5, 0.3, 0.7, 1), tensor="any", depth=depth) == pytest.approx(expected)


def test_a_gradient_of_words_takes_the_one_before():
    assert resolved((True, False, True), tensor="any", depth=0.49) is True
    assert resolved((True, False, True), tensor="any", depth=0.5) is False


def test_the_first_filter_that_fits_wins_and_its_value_may_be_a_gradient():
    setting = (Filtered("self_attn", (0, 1)), Filtered("attn", 5.0), Filtered(None, 0.5))
    assert resolved(setting, tensor="layers.0.self_attn.q_proj", depth=0.25) == 0.25
    assert resolved(setting, tensor="layers.0.attn", depth=0.25) == 5.0
    assert resolved(setting, tensor="layers.0.mlp", depth=0.25) == 0.5
    assert resolved((Filtered("*", 2.0),), tensor="x", depth=0) == 2.0


def test_where_no_filter_fits_the_next_scope_is_asked():
    inner = {"weight": (Filtered("mlp", 1.0),)}
    assert first_resolved([inner, {"weight": 0.5}], "weight", tensor="layers.0.mlp", depth=0) == 1.0
    assert first_resolved([inner, {"weight": 0.5}], "weight", tensor="layers.0.attn", depth=0) == 0.5
    assert first_resolved([inner, {}], "weight", tensor="layers.0.attn", depth=0) is None
