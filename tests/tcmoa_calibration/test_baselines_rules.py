"""The rules for visible-infrared, multi-exposure and multi-focus pairs, against loops and by what each is for."""

from itertools import product

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from tcmoa_calibration.baselines import (
    BASELINES,
    TEACHERS,
    focus_weight,
    fuse_by_activity,
    fuse_by_exposure,
)
from tcmoa_calibration.baselines.pyramids import build_pyramid, collapse_pyramid
from tcmoa_calibration.baselines.selection import guided_filter, remove_small_regions
from tcmoa_calibration.luma import exact_luma

Image = NDArray[np.uint8]
Plane = NDArray[np.float32]


def noise(seed: int, shape: tuple[int, ...]) -> Image:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def slow_mean(image: Plane, side: int) -> NDArray[np.float64]:
    near = np.pad(image.astype(np.float64), side // 2, mode="symmetric")
    h, w = image.shape
    return np.array([[near[r : r + side, c : c + side].mean() for c in range(w)] for r in range(h)])


def slow_mix(levels: list[Plane], strengths: list[NDArray[np.float64]], power: int) -> Plane:
    out = np.zeros(levels[0].shape)
    for r, c in product(*(range(side) for side in levels[0].shape)):
        a, b = (float(strength[r, c]) ** power for strength in strengths)
        weight = a / (a + b) if a + b > 0 else 0.5
        out[r, c] = weight * levels[0][r, c] + (1 - weight) * levels[1][r, c]
    return out.astype(np.float32)


def test_pyramid_gives_back_its_image() -> None:
    image = noise(0, (67, 90)).astype(np.float32)
    levels = build_pyramid(image)
    assert [level.shape for level in levels] == [(67, 90), (34, 45), (17, 23), (9, 12)]
    np.testing.assert_allclose(collapse_pyramid(levels), image, atol=1e-3)


def test_activity_of_one_level_by_loops() -> None:
    x, y = (noise(seed, (15, 18)).astype(np.float32) for seed in (1, 2))
    (detail_x, base_x), (detail_y, base_y) = build_pyramid(x), build_pyramid(y)
    near = [slow_mean(np.abs(detail), 5) for detail in (detail_x, detail_y)]
    detail = slow_mix([detail_x, detail_y], near, 4)
    totals = [cv2.pyrDown(np.abs(d)).astype(np.float64) for d in (detail_x, detail_y)]
    smooth = [cv2.GaussianBlur(total, (0, 0), 4.0, borderType=cv2.BORDER_REFLECT) for total in totals]
    base = slow_mix([base_x, base_y], smooth, 4)
    expected = collapse_pyramid([detail, base])
    np.testing.assert_allclose(fuse_by_activity(x, y), expected, atol=0.02)


def test_activity_takes_base_and_detail_from_the_source_that_has_any(photograph: Image) -> None:
    """An average base would lose half of the contrast."""
    flat = np.full_like(photograph, 230)
    fused = BASELINES["activity"].fuse(photograph, flat)
    assert np.abs(fused.astype(int) - photograph).max() <= 1


def test_gray_sources_do_not_pale_the_other(photograph: Image, other_photograph: Image) -> None:
    color = np.stack([photograph // 2 + 60, photograph // 2 + 40, 150 - photograph // 2], axis=-1)
    for name in ("activity", "exposure"):
        fused = BASELINES[name].fuse(color, other_photograph).astype(np.float64)
        inside = ((fused > 2) & (fused < 253)).all(axis=2)
        chroma = [image - exact_luma(image.astype(np.uint8), "image")[..., None] for image in (fused, color)]
        assert inside.mean() > 0.5
        assert np.abs(chroma[0] - chroma[1])[inside].max() < 1.1, name


def test_color_comes_from_the_source_with_saturation() -> None:
    red, gray = np.zeros((20, 20, 3), np.uint8), np.full((20, 20, 3), 90, np.uint8)
    red[..., 0] = 200
    fused = BASELINES["exposure"].fuse(red, gray)[0, 0].astype(int)
    assert fused[0] - fused[1] == pytest.approx(200, abs=20)


def test_exposure_of_one_level_by_loops() -> None:
    x, y = (noise(seed, (15, 18)).astype(np.float32) for seed in (3, 4))
    y //= 4
    (detail_x, base_x), (detail_y, base_y) = build_pyramid(x), build_pyramid(y)
    detail = slow_mix([detail_x, detail_y], [slow_mean(np.abs(d), 3) for d in (detail_x, detail_y)], 2)
    exposed = [
        np.mean([np.exp(-((float(v) - 127.5) ** 2) / (2 * 51**2)) for v in image.ravel()]) for image in (x, y)
    ]
    weight = exposed[0] / sum(exposed)
    expected = collapse_pyramid([detail, (weight * base_x + (1 - weight) * base_y).astype(np.float32)])
    np.testing.assert_allclose(fuse_by_exposure(x, y), expected, atol=0.02)


def test_exposure_keeps_light_places_lighter_than_dark_ones() -> None:
    """Local exposure weights would make the middle of both halves equally gray."""
    scene = np.full((128, 256), 60.0)
    scene[:, 128:] = 200
    scene += np.random.default_rng(0).normal(0, 2, scene.shape)
    long, short = (np.clip(scene * gain, 0, 255).round().astype(np.uint8) for gain in (2.5, 0.4))
    fused = BASELINES["exposure"].fuse(long, short).astype(np.float64)
    left, right = fused[:, :96], fused[:, 160:]
    assert right.mean() - left.mean() > 50
    columns = fused.mean(axis=0)
    assert np.ptp(columns[:118]) < 30
    assert np.ptp(columns[138:]) < 30


@pytest.mark.parametrize("swap", [False, True])
def test_focus_equals_the_sharp_source_away_from_the_border(photograph: Image, swap: bool) -> None:
    blurred = cv2.GaussianBlur(photograph, (0, 0), 3)
    x, y = photograph.copy(), photograph.copy()
    x[:, :72], y[:, 72:] = blurred[:, :72], blurred[:, 72:]
    fused = BASELINES["focus"].fuse(y, x) if swap else BASELINES["focus"].fuse(x, y)
    error = np.abs(fused.astype(int) - photograph)
    assert error[:, :48].mean() < 1 > error[:, 96:].mean()
    assert error.mean() < 0.5 * np.abs(x.astype(int) - photograph).mean()


def test_focus_weight_is_a_share_of_each_source(photograph: Image) -> None:
    x = photograph.astype(np.float32)
    weight = focus_weight(x, cv2.GaussianBlur(x, (0, 0), 3))
    assert weight.shape == x.shape
    assert weight.dtype == np.float32
    assert weight.min() >= 0
    assert weight.max() <= 1
    assert weight.mean() > 0.95


def test_small_regions_take_the_value_around_them() -> None:
    mask = np.zeros((40, 50), bool)
    mask[:, 25:] = True
    expected = mask.copy()
    mask[5:8, 5:8] = True  # 9 px of 2000
    mask[20:24, 40:44] = False
    mask[30:36, 30:36] = False  # 36 px stay
    expected[30:36, 30:36] = False
    assert np.array_equal(remove_small_regions(mask, 0.01), expected)


def test_guided_filter_by_windows() -> None:
    guide = noise(5, (12, 14)).astype(np.float32) / 255
    image = (noise(6, (12, 14)) > 120).astype(np.float32)
    radius, epsilon, side = 2, 0.05, 5
    mean_i, mean_p = slow_mean(guide, side), slow_mean(image, side)
    slope = (slow_mean(guide * image, side) - mean_i * mean_p) / (
        slow_mean(guide * guide, side) - mean_i**2 + epsilon
    )
    offset = mean_p - slope * mean_i
    expected = slow_mean(slope.astype(np.float32), side) * guide + slow_mean(offset.astype(np.float32), side)
    np.testing.assert_allclose(guided_filter(guide, image, radius, epsilon), expected, atol=1e-4)


def test_local_exposure_weighs_the_base_place_by_place() -> None:
    """Both halves are well exposed in another source: one weight for the whole base cannot take both."""
    left = (np.arange(512) < 256)[None].repeat(512, 0)
    good = np.random.default_rng(0).uniform(118, 138, (512, 512)).astype(np.float32)
    x, y = (np.where(mask, good, 250).astype(np.float32) for mask in (left, ~left))
    local, whole = fuse_by_exposure(x, y, is_local=True), fuse_by_exposure(x, y)
    apart = np.r_[0:64, 448:512]  # more than 128 px from the border between them
    assert np.abs(local[:, apart] - 128).mean() < 35 < np.abs(whole[:, apart] - 128).mean()
    exposed = [np.exp(-((level - 127.5) ** 2) / (2 * 76.5**2)) for level in (128.0, 250.0)]
    expected = (128 * exposed[0] + 250 * exposed[1]) / sum(exposed)
    assert local[:, :32].mean() == pytest.approx(expected, abs=4)


@pytest.mark.parametrize("name", TEACHERS)
def test_teachers_fuse_luma_and_reproduce_equal_sources(name: str) -> None:
    x, y = (noise(seed, (70, 90)).astype(np.float32) for seed in (1, 2))
    fused = TEACHERS[name](x, y)
    assert fused.shape == x.shape
    assert fused.dtype == np.float32
    np.testing.assert_allclose(TEACHERS[name](x, x), x, atol=0.01)
    assert np.abs(fused - x).mean() > 1
