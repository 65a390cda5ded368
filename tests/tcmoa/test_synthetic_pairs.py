"""Pairs made from one photograph."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tcmoa.synthetic_pairs import exposure_pair, focus_pair, smooth_mask, synthetic_infrared

on_the_photo = settings(max_examples=15)
HALF_LEVEL = 0.5 / 255 + 1e-6


@pytest.fixture(scope="module")
def scene(photo):
    return photo[:96, :80].astype(np.float32) / 255


@settings(max_examples=30)
@given(height=st.integers(8, 200), width=st.integers(8, 200), seed=st.integers(0, 2**32))
def test_masks_are_soft_and_cover_about_half(height, width, seed):
    mask = smooth_mask(height, width, np.random.default_rng(seed))
    assert mask.shape == (height, width, 1)
    assert mask.dtype == np.float32
    assert mask.min() >= 0
    assert mask.max() <= 1
    assert 0.4 < mask.mean() < 0.6
    assert np.array_equal(mask, smooth_mask(height, width, np.random.default_rng(seed)))


@on_the_photo
@given(sigma=st.floats(0.5, 5), seed=st.integers(0, 1000))
def test_each_half_of_a_focus_pair_is_sharp_where_the_other_is_blurred(scene, sigma, seed):
    mask = smooth_mask(*scene.shape[:2], np.random.default_rng(seed))
    far, near = focus_pair(scene, mask, sigma)
    np.testing.assert_allclose(far + near, scene + cv2.GaussianBlur(scene, (0, 0), sigma), atol=1e-5)
    clear, opposite = mask[..., 0] > 1 - 1e-6, mask[..., 0] < 1e-6
    np.testing.assert_allclose(far[clear], scene[clear], atol=1e-5)
    np.testing.assert_allclose(near[opposite], scene[opposite], atol=1e-5)


def test_a_whole_mask_leaves_the_photograph_untouched(scene):
    far, near = focus_pair(scene, np.ones((*scene.shape[:2], 1), np.float32), 2.0)
    assert np.array_equal(far, scene)
    assert np.array_equal(near, cv2.GaussianBlur(scene, (0, 0), 2.0))


@on_the_photo
@given(stops=st.floats(0, 4))
def test_over_exposure_is_brighter_and_under_exposure_darker_in_whole_levels(scene, stops):
    over, under = exposure_pair(scene, stops)
    assert (over >= scene - HALF_LEVEL).all()
    assert (under <= scene + HALF_LEVEL).all()
    for image in (over, under):
        assert image.dtype == np.float32
        assert 0 <= image.min() <= image.max() <= 1
        np.testing.assert_allclose(image * 255, np.round(image * 255), atol=1e-4)


def test_two_stops_are_four_times_the_light(scene):
    over, under = exposure_pair(scene, 2.0)
    open_ = (over < 1) & (under > 0.1)
    assert open_.any()
    np.testing.assert_allclose(over[open_] ** 2.2, 4 * scene[open_] ** 2.2, rtol=0.05)
    np.testing.assert_allclose(under[open_] ** 2.2, scene[open_] ** 2.2 / 4, rtol=0.05)
    assert (over == 1).mean() > 0.05  # what a sensor loses is lost


def test_zero_stops_only_round_to_levels(scene):
    for image in exposure_pair(scene, 0.0):
        np.testing.assert_allclose(image, scene, atol=HALF_LEVEL)


def test_synthetic_infrared_is_gray_stretched_and_unlike_the_photograph(scene):
    infrared = synthetic_infrared(scene)
    assert infrared.shape == scene.shape
    assert infrared.dtype == np.float32
    assert np.ptp(infrared, axis=2).max() == 0
    assert infrared.min() == 0
    assert infrared.max() == 1
    assert np.corrcoef(infrared[..., 0].ravel(), scene.mean(2).ravel())[0, 1] < 0.9


@pytest.mark.parametrize("value", [0.0, 0.4, 1.0])
def test_synthetic_infrared_of_a_flat_photograph_is_finite(value):
    infrared = synthetic_infrared(np.full((20, 30, 3), value, np.float32))
    assert np.isfinite(infrared).all()
    assert 0 <= infrared.min() <= infrared.max() <= 1
