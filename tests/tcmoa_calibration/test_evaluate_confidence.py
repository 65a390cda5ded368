"""Confidence intervals against written-out sums and the printed table of Student's t, and their coverage."""

import math

import numpy as np
import pytest

from tcmoa_calibration.evaluate import Interval, difference_interval, mean_interval

T_975 = {1: 12.706, 2: 4.303, 4: 2.776, 9: 2.262, 29: 2.045}
"""Two-sided 95 % points by degrees of freedom, as statistics books print them."""


@pytest.mark.parametrize("freedom", T_975)
def test_intervals_follow_the_textbook_formula(freedom: int) -> None:
    values = [float(v) for v in np.random.default_rng(freedom).normal(5, 3, freedom + 1)]
    mean = sum(values) / len(values)
    total = 0.0
    for value in values:
        total += (value - mean) ** 2
    expected = T_975[freedom] * math.sqrt(total / freedom) / math.sqrt(len(values))
    found = mean_interval(values)
    assert found.mean == pytest.approx(mean, rel=1e-12)
    assert found.half_width == pytest.approx(expected, rel=3e-4)
    assert found.n == freedom + 1


def test_nineteen_of_twenty_contain_the_true_mean() -> None:
    rng = np.random.default_rng(0)
    num_containing = 0
    for _ in range(4000):
        found = mean_interval([float(v) for v in rng.normal(1, 2, 6)])
        assert found.mean is not None
        assert found.half_width is not None
        num_containing += abs(found.mean - 1) <= found.half_width
    assert 0.94 < num_containing / 4000 < 0.96


def test_one_image_has_no_interval_and_no_image_has_no_mean() -> None:
    assert mean_interval([]) == Interval(None, None, 0)
    assert mean_interval([0.5]) == Interval(0.5, None, 1)
    assert not mean_interval([0.5]).excludes_zero


def test_equal_values_have_no_spread_despite_rounding() -> None:
    assert mean_interval([0.1] * 7) == Interval(pytest.approx(0.1), 0.0, 7)
    assert mean_interval([0.1] * 7).excludes_zero
    assert not mean_interval([0.0] * 7).excludes_zero


def test_differences_use_the_images_that_both_have() -> None:
    mine = {"a": 0.5, "b": 0.7, "c": None, "d": 0.9}
    first = {"a": 0.4, "b": 0.5, "c": 0.1, "e": 0.2}
    assert difference_interval(mine, first) == mean_interval([0.5 - 0.4, 0.7 - 0.5])
    assert difference_interval(mine, {"z": 1.0}) == Interval(None, None, 0)


def test_paired_differences_are_significant_where_means_overlap() -> None:
    scenes = np.random.default_rng(1).normal(0.5, 0.2, 20)
    first = {str(i): float(v) for i, v in enumerate(scenes)}
    better = {name: value + 0.01 + 0.001 * (int(name) % 3) for name, value in first.items()}
    assert difference_interval(better, first).excludes_zero
    difference = mean_interval(list(better.values())).mean - mean_interval(list(first.values())).mean  # type: ignore[operator]
    assert difference < (mean_interval(list(first.values())).half_width or 0)
