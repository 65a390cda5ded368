"""The contrast stretch of 16-bit video: percentiles, the smoothing over time, scene cuts and constant frames."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tcmoa_runtime import InputError
from tcmoa_runtime.images import stretch_to_uint8
from tcmoa_runtime.streams.stretch import SmoothStretch, histogram_percentiles


def scene(low, high):
    """A ramp from `low` to `high`, uint16 [8, 32]."""
    return np.linspace(low, high, 256).round().astype(np.uint16).reshape(8, 32)


@given(st.lists(st.integers(0, 65535), min_size=2, max_size=300), st.floats(0, 50), st.floats(50, 100))
def test_percentiles_of_a_histogram_are_within_the_values_around_the_exact_ones(values, low, high):
    image = np.array(values, np.uint16)
    for percent, found in zip((low, high), histogram_percentiles(image, (low, high)), strict=True):
        lower, upper = (np.percentile(image, percent, method=method) for method in ("lower", "higher"))
        assert lower <= found <= upper


def test_the_first_frame_is_stretched_by_its_own_percentiles():
    image = scene(7000, 9000)
    stretched = SmoothStretch()(image, 0.0)
    assert np.abs(stretched.astype(int) - stretch_to_uint8(image)).max() <= 2


def test_a_small_change_of_the_scene_is_followed_slowly():
    stretch = SmoothStretch((0, 100), time_constant=1.0)
    stretch(scene(1000, 2000), 0.0)
    after_a_tenth = stretch(scene(1100, 2100), 0.1)[0, 0]
    after_ten_seconds = stretch(scene(1100, 2100), 10.0)[0, 0]
    assert after_a_tenth == pytest.approx(255 * 90.5 / 1000, abs=1)  # 100 * exp(-0.1) levels above black
    assert after_ten_seconds == 0


def test_another_scene_is_followed_at_once():
    stretch = SmoothStretch((0, 100))
    stretch(scene(1000, 2000), 0.0)
    stretched = stretch(scene(5000, 9000), 0.04)
    assert (stretched.min(), stretched.max()) == (0, 255)


def test_without_a_time_constant_each_frame_is_stretched_by_itself():
    stretch = SmoothStretch((0, 100), time_constant=0)
    stretch(scene(1000, 2000), 0.0)
    stretched = stretch(scene(1100, 2100), 0.04)
    assert (stretched.min(), stretched.max()) == (0, 255)


def test_a_constant_frame_does_not_change_the_range():
    stretch = SmoothStretch((0, 100))
    constant = np.full((8, 32), 1500, np.uint16)
    assert not SmoothStretch()(constant, 0.0).any()
    before = stretch(scene(1000, 2000), 0.0)
    assert np.abs(stretch(constant, 0.5).astype(int) - 128).max() <= 1
    np.testing.assert_array_equal(stretch(scene(1000, 2000), 1.0), before)


@pytest.mark.parametrize("options", [{"percentiles": (99, 1)}, {"time_constant": -1}])
def test_wrong_options_are_refused(options):
    with pytest.raises(InputError, match="stretch"):
        SmoothStretch(**options)
