"""Curves made by hand are read as a person would."""

import math

from ftk.train.verdict import judge


def curve(losses, every=1):
    return [(every * place, loss) for place, loss in enumerate(losses, start=1)]


FALLING = curve([3 * math.exp(-step / 10) + 0.5 for step in range(40)])
FLAT = curve([0.5 + 0.02 * (step % 3) for step in range(40)])


def test_overfitting_tells_since_when():
    verdict = judge(FALLING, [(0, 4.0), *curve([2.0, 1.5, 1.2, 1.4, 1.7], every=10)])
    assert verdict.overfitting
    assert verdict.best_step == 30
    assert "overfitting since step 40, the best was step 30" in verdict.sentences[0]
    assert len(verdict.sentences) == 1


def test_a_rise_within_noise_is_not_overfitting():
    assert not judge(FALLING, curve([2.0, 1.5, 1.505])).overfitting


def test_still_falling():
    assert judge(FALLING, curve([3.0, 2.5, 2.0, 1.6, 1.3, 1.0])).sentences == ("still falling, more epochs may help",)
    assert judge(curve([5 - 0.1 * step for step in range(30)]), []).sentences == (
        "still falling, more epochs may help",
    )


def test_flat_curves_say_nothing():
    verdict = judge(FLAT, curve([0.6, 0.55, 0.55, 0.55, 0.55, 0.55]))
    assert verdict.sentences == ()
    assert not verdict.overfitting


def test_unsteady():
    jumping = curve([1.0 + 2 * (step % 2) for step in range(40)])
    assert judge(jumping, []).sentences == ("unsteady, try a lower learning rate",)
    diverged = curve([4.0, 3, 2, 1.5, 1, 1, 1, 1, 1.2, 2, 3, 4, 5, 6, 6, 6])
    assert "unsteady, try a lower learning rate" in judge(diverged, []).sentences


def test_batches_that_differ_are_not_unsteady():
    noisy = curve([1.0 + 0.3 * math.sin(7.0 * step) for step in range(60)])
    assert judge(noisy, []).sentences == ()
    nearly_zero = curve([*[3.0 / (step + 1) for step in range(30)], *[0.001 + 0.02 * (step % 2) for step in range(30)]])
    assert "unsteady, try a lower learning rate" not in judge(nearly_zero, []).sentences


def test_nothing_measured():
    verdict = judge([], [])
    assert (verdict.sentences, verdict.overfitting, verdict.best_step) == ((), False, None)
