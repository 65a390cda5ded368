"""Medians, spreads and ratios paired by round."""

import pytest

from harness.statistic import Sample, Series, quantile, ratio, times


def series(*rounds):
    """A round is a number (one counted sample), None (one that does not count) or a list of both kinds."""
    made = Series()
    for each in rounds:
        values = each if isinstance(each, list) else [each]
        made.rounds.append([Sample([abs(v or 1.0)], 0.0, v is not None) for v in values])
    return made


def test_quantiles_are_interpolated():
    assert quantile([3, 1, 2], 0.5) == 2
    assert quantile([1, 2], 0.5) == 1.5
    assert quantile([5], 0.99) == 5
    assert quantile(list(range(101)), 0.99) == 99


def test_only_valid_samples_enter_the_statistics():
    found = times(series(10.0, [None, 12.0], 14.0, None))
    assert (found.p50, found.low, found.high) == (12.0, 10.0, 14.0)
    assert (found.q1, found.q3) == (11.0, 13.0)
    one = series(10.0, [None, 12.0], 14.0, None)
    assert (one.counted, one.tried) == (3, 5)
    assert one.medians == [10.0, 12.0, 14.0, None]


def test_too_few_rounds_are_too_noisy():
    assert times(series(10.0, None, None)) is None
    assert times(series(10.0, 10.0, None, None)) is not None
    assert times(Series()) is None


def test_a_ratio_is_paired_by_round():
    # The machine slows down threefold: round by round the contender is twice as fast, as long as both saw the same.
    base, contender = series(100.0, 200.0, 300.0), series(50.0, 100.0, 150.0)
    found = ratio(base, contender)
    assert (found.median, found.lowest, found.highest, found.rounds) == (2.0, 2.0, 2.0, 3)
    found = ratio(series(100.0, None, 300.0, 100.0), series(50.0, 1.0, None, 40.0))
    assert (found.median, found.rounds) == (pytest.approx(2.25), 2)


def test_noisy_series_have_no_ratio():
    quiet, noisy = series(1.0, 1.0, 1.0, 1.0), series(1.0, None, None, None)
    assert ratio(noisy, quiet) is None
    assert ratio(quiet, noisy) is None
    # Each has half of its rounds, but no round has both.
    assert ratio(series(1.0, 1.0, None, None), series(None, None, 1.0, 1.0)) is None
