"""Each method against a slow implementation, and properties for any pair of images."""

import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tcmoa_calibration.baselines import BASELINES, Baseline
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.images import read_image
from tcmoa_runtime.options.evaluate import BASELINE_NAMES
from tcmoa_runtime.pairs import find_pairs

Image = NDArray[np.uint8]

every_baseline = pytest.mark.parametrize("baseline", BASELINES.values(), ids=BASELINES)


@st.composite
def pairs(draw: st.DrawFn, channels: tuple[int, ...] = (1, 3)) -> tuple[Image, Image]:
    """Return two images of one size, each of noise, one level or a ramp, gray or color."""
    h, w = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    images = []
    for _ in range(2):
        rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
        shape = (h, w) if draw(st.sampled_from(channels)) == 1 else (h, w, 3)
        kind = draw(st.sampled_from(["noise", "level", "ramp", "extremes"]))
        if kind == "noise":
            image = rng.integers(0, 256, shape)
        elif kind == "level":
            image = np.full(shape, rng.choice([0, 1, 128, 255]))
        elif kind == "ramp":
            image = np.broadcast_to(np.linspace(0, 255, w).reshape((1, w) + (1,) * (len(shape) - 2)), shape)
        else:
            image = rng.choice([0, 255], shape)
        images.append(image.astype(np.uint8))
    return images[0], images[1]


def noise(seed: int, shape: tuple[int, ...] = (37, 50, 3)) -> Image:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def max_difference(a: Image, b: Image) -> int:
    return int(np.max(np.abs(a.astype(np.int64) - b)))


def test_names_and_descriptions() -> None:
    assert tuple(BASELINES) == BASELINE_NAMES
    assert list(BASELINES)[:5] == ["average", "maximum", "laplacian", "mertens", "patches"]
    assert list(BASELINES)[5:] == ["activity", "exposure", "focus"]
    for name, baseline in BASELINES.items():
        assert baseline.name == name
        assert baseline.description
        assert "\n" not in baseline.description


@every_baseline
@given(pair=pairs())
@settings(max_examples=40)
def test_results_have_the_size_of_their_sources_which_do_not_change(
    baseline: Baseline, pair: tuple[Image, Image]
) -> None:
    x, y = pair
    before = x.copy(), y.copy()
    x.setflags(write=False)
    y.setflags(write=False)
    fused = baseline.fuse(x, y)
    assert fused.dtype == np.uint8
    assert fused.shape == (x.shape if x.ndim >= y.ndim else y.shape)
    assert np.array_equal(fused, baseline.fuse(x, y))
    assert np.array_equal(x, before[0])
    assert np.array_equal(y, before[1])
    if baseline.name not in ("patches", "focus"):  # a tie goes to one of the sources
        assert np.array_equal(fused, baseline.fuse(y, x))


@every_baseline
@given(pair=pairs())
@settings(max_examples=25)
def test_equal_sources_are_the_result(baseline: Baseline, pair: tuple[Image, Image]) -> None:
    x = pair[0]
    fused = baseline.fuse(x, x)
    has_pyramid = baseline.name in ("laplacian", "mertens", "activity", "exposure")
    assert max_difference(fused, x) <= (1 if has_pyramid else 0)  # float32


@every_baseline
@given(pair=pairs(channels=(1,)))
@settings(max_examples=25)
def test_gray_gives_gray_in_every_shape(baseline: Baseline, pair: tuple[Image, Image]) -> None:
    x, y = pair
    fused = baseline.fuse(x, y)
    assert np.array_equal(baseline.fuse(x[..., None], y), fused)
    in_color = baseline.fuse(np.repeat(x[..., None], 3, axis=2), y)
    assert in_color.shape == (*fused.shape, 3)
    assert max_difference(in_color, fused[..., None]) <= 1


@every_baseline
def test_views_and_threads_change_nothing(baseline: Baseline) -> None:
    x, y = noise(1), noise(2)
    fused = baseline.fuse(x, y)
    from_views = baseline.fuse(x[::-1, :, ::-1].copy()[::-1, :, ::-1], np.asfortranarray(y))
    assert np.array_equal(fused, from_views)
    assert fused.flags.c_contiguous
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: baseline.fuse(x, y), range(24)))
    assert all(np.array_equal(f, fused) for f in found)


@given(pairs(channels=(3,)))
@settings(max_examples=10)
def test_average_and_maximum_pixel_by_pixel(pair: tuple[Image, Image]) -> None:
    x, y = pair
    values = list(zip(x.ravel().tolist(), y.ravel().tolist(), strict=True))
    assert BASELINES["average"].fuse(x, y).ravel().tolist() == [
        math.floor((a + b) / 2 + 0.5) for a, b in values
    ]
    assert BASELINES["maximum"].fuse(x, y).ravel().tolist() == [max(a, b) for a, b in values]


TAPS = np.array([1, 4, 6, 4, 1]) / 16


def slow_halving(image: NDArray[np.float64]) -> NDArray[np.float64]:
    """REDUCE of Burt and Adelson, the image mirrored about its border pixels."""
    h, w = image.shape[:2]
    near = np.pad(image, ((2, 2), (2, 2), (0, 0)), mode="reflect")
    window = np.outer(TAPS, TAPS)[..., None]
    return np.array(
        [[(near[r : r + 5, c : c + 5] * window).sum((0, 1)) for c in range(0, w, 2)] for r in range(0, h, 2)]
    )


def slow_doubling(image: NDArray[np.float64]) -> NDArray[np.float64]:
    """EXPAND: zeros in between, blurred with four times the window; exact away from the border only."""
    h, w = image.shape[0] * 2, image.shape[1] * 2
    apart = np.zeros((h + 4, w + 4, image.shape[2]))
    apart[2:-2:2, 2:-2:2] = image
    window = 4 * np.outer(TAPS, TAPS)[..., None]
    return np.array(
        [[(apart[r : r + 5, c : c + 5] * window).sum((0, 1)) for c in range(w)] for r in range(h)]
    )


@pytest.mark.parametrize("seed", range(3))
def test_laplacian_of_one_level(seed: int) -> None:
    x, y = noise(seed, (24, 28, 3)), noise(seed + 9, (24, 28, 3))
    halves = [slow_halving(image.astype(np.float64)) for image in (x, y)]
    details = [image - slow_doubling(half) for image, half in zip((x, y), halves, strict=True)]
    expected = slow_doubling((halves[0] + halves[1]) / 2)
    for r in range(24):
        for c in range(28):
            strengths = [np.abs(detail[r, c]).sum() for detail in details]
            expected[r, c] += details[0][r, c] if strengths[0] > strengths[1] else details[1][r, c]
    inner = np.s_[3:-3, 3:-3]
    fused = BASELINES["laplacian"].fuse(x, y)
    assert np.abs(fused[inner] - np.clip(expected, 0, 255)[inner]).max() <= 0.5 + 1e-3


def test_laplacian_keeps_all_detail_of_the_one_source_that_has_any(photograph: Image) -> None:
    """With a flat source, half of the coarsest level is lost, in which neighbors hardly differ."""
    flat = np.full_like(photograph, 128)
    fused = BASELINES["laplacian"].fuse(photograph, flat).astype(np.float64)
    lost = fused - photograph
    unclipped = (fused > 0) & (fused < 255)
    both = unclipped[:, 1:] & unclipped[:, :-1]
    assert (
        np.abs(np.diff(lost, axis=1))[both].mean() < 0.15 * np.abs(np.diff(photograph.astype(float))).mean()
    )


@pytest.mark.parametrize(("side", "averaged"), [(1, True), (14, True), (15, False)])
def test_images_too_small_for_a_pyramid_are_averaged(side: int, averaged: bool) -> None:
    x, y = noise(1, (side, 40)), noise(2, (side, 40))
    same = np.array_equal(BASELINES["laplacian"].fuse(x, y), BASELINES["average"].fuse(x, y))
    assert same == averaged


@pytest.mark.parametrize(("side", "gray"), [(1, False), (60, False), (60, True)])
def test_mertens_without_a_pyramid(side: int, gray: bool) -> None:
    """A row of pixels is not halved, so the result is the weighted mean."""
    x, y = noise(3, (1, side, 3)), noise(4, (1, side, 3))
    if gray:
        y[:] = y[..., :1]
    weights = []
    for image in (x, y):
        v = image[0] / 255
        luma = v @ np.array([0.299, 0.587, 0.114])
        near = np.pad(luma, 1, mode="reflect") if side > 1 else np.repeat(luma, 3)
        weight = np.abs(near[:-2] + near[2:] - 2 * luma)
        weight *= np.exp(-((v - 0.5) ** 2) / (2 * 0.2**2)).prod(axis=1)
        if not gray:
            weight *= v.std(axis=1)
        weights.append(weight + 1e-12)
    expected = (weights[0][:, None] * x[0] + weights[1][:, None] * y[0]) / (weights[0] + weights[1])[:, None]
    assert np.abs(BASELINES["mertens"].fuse(x, y)[0] - expected).max() <= 0.5 + 0.05


def test_mertens_keeps_an_infrared_source(photograph: Image, other_photograph: Image) -> None:
    color = np.stack([photograph, photograph // 2, 255 - photograph], axis=-1)
    fused = BASELINES["mertens"].fuse(color, other_photograph).astype(np.float64)
    distance_to_color = np.abs(fused - color).mean()
    assert distance_to_color > 10
    assert np.abs(fused - other_photograph[..., None]).mean() < 2 * distance_to_color


def slow_patches(x: Image, y: Image) -> Image:
    fused = np.zeros_like(x)
    kernel = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    edges = []
    for image in (x, y):
        luma = np.pad(image @ np.array([299, 587, 114]), 1, mode="edge")
        edges.append(
            [
                [
                    abs((luma[r : r + 3, c : c + 3] * kernel).sum())
                    + abs((luma[r : r + 3, c : c + 3] * kernel.T).sum())
                    for c in range(image.shape[1])
                ]
                for r in range(image.shape[0])
            ]
        )
    of_x, of_y = np.array(edges[0]), np.array(edges[1])
    for r in range(0, x.shape[0], 16):
        for c in range(0, x.shape[1], 16):
            patch = np.s_[r : r + 16, c : c + 16]
            fused[patch] = x[patch] if of_x[patch].max() >= of_y[patch].max() else y[patch]
    return fused


@pytest.mark.parametrize("shape", [(1, 1), (5, 3), (16, 16), (32, 48), (33, 47), (17, 64)])
def test_patches_pixel_by_pixel(shape: tuple[int, int]) -> None:
    for seed in range(3):
        x, y = noise(seed, (*shape, 3)), noise(seed + 9, (*shape, 3))
        assert np.array_equal(BASELINES["patches"].fuse(x, y), slow_patches(x, y))


def test_patches_select_x_in_a_tie_and_else_the_sharp_half(photograph: Image) -> None:
    dark, light = np.full((20, 20), 9, np.uint8), np.full((20, 20), 200, np.uint8)
    assert np.array_equal(BASELINES["patches"].fuse(dark, light), dark)
    assert np.array_equal(BASELINES["patches"].fuse(light, dark), light)
    x, y = photograph.copy(), photograph.copy()
    x[:, :64], y[:, 64:] = 128, 128  # half of the content each; column 64 is a border of patches
    fused = BASELINES["patches"].fuse(x, y)
    inner = [column for column in range(144) if not 48 <= column < 80]  # gradients do not reach the cut
    assert np.array_equal(fused[:, inner], photograph[:, inner])


GOOD = noise(0)


@every_baseline
@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (GOOD, GOOD[:-1], "x is 50x37, y is 50x36; expected sources of one size"),
        (GOOD, GOOD[:, :-1, 0], "x is 50x37, y is 49x37"),
        (GOOD.astype(np.uint16), GOOD, "x: uint16; expected uint8"),
        (GOOD, GOOD / 255, "y: float64"),
        (GOOD, np.dstack([GOOD, GOOD])[..., :4], r"y: shape \[37, 50, 4\]; expected"),
        (GOOD[None], GOOD, r"x: shape \[1, 37, 50, 3\]"),
        (GOOD, GOOD[0, 0], r"y: shape \[3\]"),
        (GOOD[:0], GOOD[:0], "expected at least one pixel"),
        (None, GOOD, "x: object"),
        ([[1, 2], [3]], GOOD, "x: a list that is not an array"),
    ],
)
def test_other_arrays_are_refused_in_one_line(baseline: Baseline, x: Any, y: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as raised:
        baseline.fuse(x, y)
    assert "\n" not in str(raised.value)


def test_real_pairs(val_pairs: Path) -> None:
    for task in ("vif", "mef", "mff"):
        pair = find_pairs(val_pairs / task)[0]
        x, y = read_image(pair.x), read_image(pair.y)
        for name, baseline in BASELINES.items():
            fused = baseline.fuse(x, y)
            assert fused.shape[:2] == x.shape[:2], name
            low, high = np.minimum(x.min(), y.min()), np.maximum(x.max(), y.max())
            assert np.ptp(fused) > 100, name
            if name in ("average", "maximum", "patches"):
                assert low <= fused.min() <= fused.max() <= high, name
