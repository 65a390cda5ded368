"""Converting arrays into frames, and stretching 16 bits to 8."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from tcmoa_runtime import InputError
from tcmoa_runtime.images import LUMA, check_percentiles, stretch_to_uint8, to_frame

ROUNDING = 0.5 + 1e-3
"""Tolerance of a gray level that is computed in float32 and rounded."""


def percentile(values, q):
    """Compute a percentile, linear between the two nearest ranks."""
    ranked = sorted(values)
    position = (len(ranked) - 1) * q / 100
    low = int(position)
    high = min(low + 1, len(ranked) - 1)
    return ranked[low] + (ranked[high] - ranked[low]) * (position - low)


def stretched(image, low, high):
    """Stretch a 16-bit image without rounding, one value at a time."""
    numbers = [int(v) for v in image.ravel()]
    black, white = percentile(numbers, low), percentile(numbers, high)
    if white <= black:
        black, white = min(numbers), max(min(numbers) + 1, max(numbers))
    span = white - black
    return np.reshape([min(max((v - black) * 255 / span, 0), 255) for v in numbers], image.shape)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def color(rng):
    return rng.integers(0, 256, (6, 7, 3), np.uint8)


def test_a_color_frame_is_not_changed(color):
    np.testing.assert_array_equal(to_frame(color, "x"), color)


@pytest.mark.parametrize("shape", [(6, 7), (6, 7, 1)])
def test_gray_is_repeated_in_all_channels(shape, rng):
    gray = rng.integers(0, 256, shape, np.uint8)
    np.testing.assert_array_equal(to_frame(gray, "x"), np.dstack([gray.reshape(6, 7)] * 3))
    np.testing.assert_array_equal(to_frame(gray, "x", 1), gray.reshape(6, 7, 1))


def test_alpha_is_dropped(color, rng):
    alpha = rng.integers(0, 256, (6, 7, 1), np.uint8)
    np.testing.assert_array_equal(to_frame(np.dstack([color, alpha]), "x"), color)


def test_alpha_does_not_affect_the_stretch(rng):
    color = rng.integers(1000, 2000, (6, 7, 3), np.uint16)
    alpha = np.full((6, 7, 1), 65535, np.uint16)
    np.testing.assert_array_equal(to_frame(np.dstack([color, alpha]), "x"), to_frame(color, "x"))


@pytest.mark.parametrize("order", ["rgb", "bgr"])
def test_color_becomes_bt601_luma_for_a_one_channel_source(order, color):
    red, green, blue = (color[..., i].astype(float) for i in ((0, 1, 2) if order == "rgb" else (2, 1, 0)))
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    result = to_frame(color, "y", 1, order=order)
    assert result.shape == (6, 7, 1)
    assert np.abs(result[..., 0] - luma).max() <= ROUNDING


def test_the_luma_of_gray_is_the_same_gray():
    assert sum(LUMA) == pytest.approx(1)
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    np.testing.assert_array_equal(to_frame(ramp, "y", 1)[..., 0], ramp[..., 0])


def test_views_are_copied_to_contiguous_frames(color):
    for view in (color[..., ::-1], color[::-1], color[:, ::2], color.transpose(1, 0, 2), color[1:, 1:]):
        result = to_frame(view, "x")
        assert result.flags.c_contiguous
        np.testing.assert_array_equal(result, view)


def test_a_read_only_frame_is_accepted(color):
    color.setflags(write=False)
    np.testing.assert_array_equal(to_frame(color, "x"), color)


images_16 = npst.arrays(
    np.uint16,
    st.tuples(st.integers(1, 6), st.integers(1, 6))
    | st.tuples(st.integers(1, 4), st.integers(1, 4), st.just(3)),
)


@given(images_16, st.sampled_from([(1.0, 99.0), (0.0, 100.0), (5.0, 60.0), (49.0, 51.0)]))
def test_16_bit_images_are_stretched_between_their_percentiles(image, percentiles):
    result = stretch_to_uint8(image, percentiles)
    assert result.dtype == np.uint8
    assert np.abs(result - stretched(image, *percentiles)).max() <= ROUNDING


def test_the_stretch_uses_the_percentiles_of_all_channels_together():
    """Percentiles per channel would change the colors."""
    image = np.dstack([np.full((4, 4), level, np.uint16) for level in (0, 500, 1000)])
    np.testing.assert_array_equal(to_frame(image, "x", percentiles=(0, 100))[0, 0], [0, 128, 255])


@pytest.mark.parametrize("level", [0, 1, 40000, 65535])
def test_a_constant_16_bit_image_becomes_black(level):
    assert not to_frame(np.full((4, 5), level, np.uint16), "x").any()


def test_a_few_hot_pixels_on_a_constant_image_stay_visible():
    """Both percentiles are equal, so the minimum and the maximum are used."""
    image = np.full((20, 20), 1000, np.uint16)
    image[0, 0] = 1010
    assert to_frame(image, "x")[0, 0, 0] == 255


@given(
    npst.arrays(
        st.sampled_from([np.uint8, np.uint16]),
        st.tuples(st.integers(1, 5), st.integers(1, 5))
        | st.tuples(st.integers(1, 5), st.integers(1, 5), st.sampled_from([1, 3, 4])),
    ),
    st.sampled_from([1, 3]),
    st.sampled_from(["rgb", "bgr"]),
)
def test_the_result_is_always_a_contiguous_uint8_frame(image, channels, order):
    result = to_frame(image, "x", channels, order=order)
    assert (result.dtype, result.shape) == (np.uint8, (*image.shape[:2], channels))
    assert result.flags.c_contiguous


REFUSED = {
    "float64": np.zeros((4, 5, 3)),
    "float32": np.zeros((4, 5, 3), np.float32),
    "bool": np.zeros((4, 5), bool),
    "int16": np.zeros((4, 5), np.int16),
    "int64 list": [[1, 2], [3, 4]],
    "object": np.zeros((4, 5), object),
    "text": np.full((4, 5), "a"),
    "big-endian uint16": np.zeros((4, 5), ">u2"),
    "2 channels": np.zeros((4, 5, 2), np.uint8),
    "5 channels": np.zeros((4, 5, 5), np.uint8),
    "channels first": np.zeros((3, 40, 50), np.uint8),
    "0-D": np.uint8(1),
    "1-D": np.zeros(4, np.uint8),
    "4-D": np.zeros((1, 4, 5, 3), np.uint8),
    "zero rows": np.zeros((0, 5, 3), np.uint8),
    "zero columns": np.zeros((4, 0), np.uint8),
    "zero channels": np.zeros((4, 5, 0), np.uint8),
    "ragged": [[1, 2], [3]],
    "None": None,
    "a path": "x.png",
}


@pytest.mark.parametrize("kind", REFUSED)
def test_anything_else_is_refused_with_the_name_of_the_image(kind):
    with pytest.raises(InputError, match=r"^the left camera: ") as caught:
        to_frame(REFUSED[kind], "the left camera")
    assert "\n" not in str(caught.value)


def test_a_refused_type_comes_with_its_conversion():
    with pytest.raises(InputError, match=r"^x: holds float32; expected uint8.*astype"):
        to_frame(np.zeros((4, 5, 3), np.float32), "x")


@given(npst.arrays(npst.scalar_dtypes(), npst.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)))
def test_arbitrary_arrays_become_a_frame_or_are_refused(array):
    try:
        result = to_frame(array, "x")
    except InputError:
        return
    assert array.dtype in (np.uint8, np.uint16)
    assert result.shape == (*array.shape[:2], 3)


@pytest.mark.parametrize("percentiles", [(0, 100), (1.5, 99), (0, 0.1)])
def test_ascending_percentiles_are_accepted(percentiles):
    assert check_percentiles(percentiles) == percentiles


@pytest.mark.parametrize(
    "percentiles", [(50, 50), (99, 1), (-1, 99), (0, 101), (np.nan, 99), (1, np.nan), (1, np.inf)]
)
def test_percentiles_not_ascending_within_0_to_100_are_refused(percentiles):
    with pytest.raises(InputError, match="expected two percentiles, 0 <= LOW < HIGH <= 100"):
        check_percentiles(percentiles)
