"""Prompt maps: numbers, arrays and painted masks become one number per token."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from tcmoa_runtime import InputError
from tcmoa_runtime.prompts import mask_to_shift, pool_to_grid, prompt_map

GRID = (3, 4)


@pytest.mark.parametrize(
    "value", [1.5, 2, True, np.float32(1.5), np.int8(-3), np.array(0.25), np.float64(-16)]
)
def test_a_number_fills_the_map(value):
    result = prompt_map(value, "scale", 2, GRID)
    assert result.dtype == np.float32
    assert result.flags.c_contiguous
    np.testing.assert_array_equal(result, np.full((2, *GRID), np.float32(value)))


@pytest.mark.parametrize("shape", [GRID, (1, *GRID), (2, *GRID)])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, np.int64, np.uint8, np.bool_])
def test_maps_are_repeated_over_the_batch(shape, dtype):
    value = (np.arange(np.prod(shape)) % 13).reshape(shape).astype(dtype)
    result = prompt_map(value, "scale", 2, GRID)
    assert (result.dtype, result.shape, result.flags.c_contiguous) == (np.float32, (2, *GRID), True)
    np.testing.assert_array_equal(result, np.broadcast_to(value.astype(np.float32), (2, *GRID)))


def test_nested_lists_and_transposed_maps_are_accepted():
    value = np.arange(12.0).reshape(GRID)
    for given_as in (value.tolist(), np.asfortranarray(value), value.T.copy().T):
        np.testing.assert_array_equal(prompt_map(given_as, "scale", 1, GRID)[0], value)


@pytest.mark.parametrize(
    "value",
    [
        np.nan,
        np.inf,
        -np.inf,
        1e300,
        np.full(GRID, -1e300),
        np.full(GRID, np.nan),
        "1.5",
        b"1",
        "text",
        None,
        [[None] * 4] * 3,
        1j,
        np.zeros(GRID, complex),
        10**400,
        {},
        object,
        np.datetime64(1, "s"),
        [[1, 2], [3]],
        [1, 2],
        np.zeros((4, 3)),
        np.zeros((3, *GRID)),
        np.zeros((2, 1, *GRID)),
        np.zeros((*GRID, 1)),
        np.zeros((0, *GRID)),
        np.zeros(0),
        np.full(GRID, "1"),
    ],
    ids=lambda v: " ".join(repr(v).split())[:40],
)
def test_values_that_are_not_a_finite_number_per_token_are_refused(value):
    with pytest.raises(InputError, match=r"^scale: ") as caught:
        prompt_map(value, "scale", 2, GRID)
    assert "expected" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [16.001, -1e30, np.array([[0.0] * 4, [0.0] * 4, [0.0, -17.0, 0.0, 0.0]])])
def test_magnitudes_above_16_are_refused(value):
    with pytest.raises(InputError, match=r"^scale: holds -?[\de.+]+; expected -16 to 16$"):
        prompt_map(value, "scale", 2, GRID)


def test_frames_of_a_batch_do_not_share_memory():
    value = np.zeros(GRID, np.float32)
    result = prompt_map(value, "scale", 2, GRID)
    result[0, 0, 0] = 1
    assert result[1, 0, 0] == 0


def mean_over(values, rows, columns):
    return values[rows[0] : rows[1], columns[0] : columns[1]].astype(float).mean()


def spans_of_pixels(length, parts, token):
    return [(i * token, min((i + 1) * token, length)) for i in range(parts)]


def even_spans(length, parts):
    """Return spans with rounded edges; a span without a pixel gets the pixel that it lies in."""
    edges = [Fraction(length * i, parts) for i in range(parts + 1)]
    assume(all(edge % 1 != Fraction(1, 2) for edge in edges))  # both roundings are correct
    starts = [min(round(edge), length - 1) for edge in edges]
    return [(start, max(round(end), start + 1)) for start, end in zip(starts[:-1], edges[1:], strict=True)]


small_images = npst.arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40)))


@given(small_images, st.sampled_from([8, 16]))
def test_pooling_by_tokens_is_the_mean_of_each_tokens_pixels(image, token):
    grid = tuple(-(-length // token) for length in image.shape)
    rows, columns = (spans_of_pixels(n, g, token) for n, g in zip(image.shape, grid, strict=True))
    expected = [[mean_over(image, r, c) for c in columns] for r in rows]
    np.testing.assert_allclose(pool_to_grid(image, grid, token), expected, rtol=1e-6)


@given(small_images, st.tuples(st.integers(1, 50), st.integers(1, 50)))
def test_pooling_evenly_is_the_mean_of_each_part(image, grid):
    rows, columns = (even_spans(n, g) for n, g in zip(image.shape, grid, strict=True))
    expected = [[mean_over(image, r, c) for c in columns] for r in rows]
    np.testing.assert_allclose(pool_to_grid(image, grid, None), expected, rtol=1e-6)


@given(npst.arrays(np.float64, GRID, elements=st.floats(-1, 1)), st.sampled_from([8, None]))
def test_an_image_of_the_size_of_the_grid_is_not_averaged(image, token):
    np.testing.assert_array_equal(pool_to_grid(image, GRID, token), image.astype(np.float32))


def test_a_constant_image_stays_exactly_that_constant():
    mask = np.full((100, 130), 127 / 256)
    np.testing.assert_array_equal(pool_to_grid(mask, (13, 17), 8), np.full((13, 17), np.float32(127 / 256)))


def test_a_gray_level_of_a_mask_is_converted_to_beta():
    mask = np.array([[0, 64, 128, 255]], np.uint8)
    np.testing.assert_array_equal(mask_to_shift(mask), [[-0.5, -0.25, 0, 127 / 256]])
