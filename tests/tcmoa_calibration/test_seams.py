"""Added seams are found at their place only; comparison with a slow implementation; real pairs."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage  # type: ignore[import-untyped]

from tcmoa_calibration.seams import Scan, border_steps, excess_steps, scan_offsets
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.images import read_image
from tcmoa_runtime.pairs import find_pairs

Image = NDArray[np.uint8]


def to_uint8(values: NDArray[Any]) -> Image:
    return np.clip(np.floor(values + 0.5), 0, 255).astype(np.uint8)


def picture(seed: int, shape: tuple[int, int], grain: float = 3.0) -> NDArray[Any]:
    """Return smooth shapes and noise, from 28 to 228."""
    rng = np.random.default_rng(seed)
    rough = ndimage.gaussian_filter(rng.normal(0, 1, shape), 5)
    levels: NDArray[Any] = 128 + np.clip(
        35 * rough / rough.std() + grain * rng.normal(0, 1, shape), -100, 100
    )
    return levels


def blocks(seed: int, shape: tuple[int, int], period: int, offset: int, height: float) -> NDArray[Any]:
    """Return [H, W]: +height and -height in alternate blocks of a grid, like a chessboard."""
    rows, columns = (np.arange(side) - offset for side in shape)
    sign = (rows[:, None] // period + columns[None, :] // period) % 2
    return height * (2.0 * sign - 1) * (1, -1)[seed % 2]


def slow_steps(image: Image, period: int, offset: int, among: int) -> tuple[float, float]:
    luma = image @ np.array([0.299, 0.587, 0.114]) if image.ndim == 3 else image.astype(np.float64)
    borders, elsewhere = [], []
    for plane in (luma, luma.T):
        h, w = plane.shape
        if h <= period:
            continue
        at, others = [], []
        for p in range(1, h):
            steps = [abs(plane[p, c] - plane[p - 1, c]) for c in range(w)]
            if (p - offset) % period == 0:
                at += steps
            elif (p - offset) % among == 0:
                others += steps
        borders.append(np.mean(at))
        elsewhere.append(np.mean(others))
    return float(np.mean(borders)), float(np.mean(elsewhere))


@pytest.mark.parametrize(
    ("shape", "period", "offset", "among"),
    [
        ((20, 31), 8, 0, 1),
        ((20, 31), 8, 3, 1),
        ((31, 20), 20, 13, 1),
        ((33, 26), 16, 7, 4),
        ((33, 26), 16, -5, 8),
        ((1, 9), 2, 1, 1),
        ((9, 1), 8, 0, 4),
        ((9, 30, 3), 6, 8, 2),
    ],
)
def test_results_equal_those_of_a_slow_implementation(
    shape: tuple[int, ...], period: int, offset: int, among: int
) -> None:
    image, other, third = (
        np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8) for seed in range(3)
    )
    expected = slow_steps(image, period, offset, among)
    found = border_steps(image, period, offset, among=among)
    assert (found.borders, found.elsewhere) == pytest.approx(expected, abs=1e-9)
    assert found.ratio == pytest.approx((expected[0] + 0.01) / (expected[1] + 0.01))
    ratios = [border_steps(each, period, offset, among=among).ratio for each in (other, third, image)]
    expected_excess = ratios[2] / ((ratios[0] + ratios[1]) / 2)
    assert excess_steps(other, third, image, period, offset, among=among) == pytest.approx(expected_excess)


@given(
    st.integers(0, 500),
    st.sampled_from([4, 8, 16, 24]),
    st.integers(0, 23),
    st.sampled_from([6.0, 12.0, 25.0]),
)
@settings(max_examples=40)
def test_an_added_grid_is_found_at_its_offset(seed: int, period: int, offset: int, height: float) -> None:
    shape = (3 * period + 7 + seed % 9, 3 * period + 20)
    x, y = picture(seed, shape), picture(seed + 1, shape)
    clean = (x + y) / 2
    fused = to_uint8(clean + blocks(seed, shape, period, offset, height))
    sources = to_uint8(x), to_uint8(y)
    scan = scan_offsets(fused, period, sources)
    assert scan.rank(offset) == 1
    assert scan.ratios.index(max(scan.ratios)) == offset % period
    assert scan.z(offset) > 4
    excess = excess_steps(*sources, fused, period, offset)
    assert excess == pytest.approx(scan.ratios[offset % period])
    assert excess > excess_steps(*sources, to_uint8(clean), period, offset) + 0.1
    higher = to_uint8(clean + blocks(seed, shape, period, offset, 2 * height))
    assert excess_steps(*sources, higher, period, offset) > excess


@given(st.integers(0, 10_000), st.sampled_from([2, 8, 16, 56]))
@settings(max_examples=25)
def test_an_image_without_seams_has_a_ratio_near_one(seed: int, period: int) -> None:
    image = to_uint8(picture(seed, (180, 200)))
    scan = scan_offsets(image, period)
    assert np.mean(scan.ratios) == pytest.approx(1, abs=0.01)
    assert all(ratio == pytest.approx(1, abs=0.2) for ratio in scan.ratios)
    assert scan.ratios[1] == border_steps(image, period, 1).ratio
    assert sorted({scan.rank(offset) for offset in range(period)})[0] == 1


@given(st.integers(0, 1000), st.integers(2, 9), st.integers(-30, 30))
@settings(max_examples=25)
def test_offsets_wrap_and_a_transposed_image_has_the_same_result(seed: int, period: int, offset: int) -> None:
    image = to_uint8(picture(seed, (10 + seed % 5, 21)))
    found = border_steps(image, period, offset)
    assert border_steps(image, period, offset + 3 * period) == found
    transposed = border_steps(image.T, period, offset)
    assert (transposed.borders, transposed.elsewhere) == pytest.approx((found.borders, found.elsewhere))
    if offset % period != 1:  # else the first border is lost with the first column
        row, cut = border_steps(image[:1], period, offset), border_steps(image[:1, 1:], period, offset - 1)
        assert row.borders == pytest.approx(cut.borders)


def test_flat_images_ramps_and_equal_images() -> None:
    flat = np.full((40, 60), 77, np.uint8)
    ramp = np.broadcast_to(np.arange(0, 240, 4, dtype=np.uint8), (40, 60))
    for image in (flat, ramp):
        scan = scan_offsets(image, 8)
        assert scan.ratios == pytest.approx([1] * 8)
        assert [scan.z(offset) for offset in range(8)] == pytest.approx([0] * 8)
    assert border_steps(ramp, 8).borders == pytest.approx(2)  # 4 across, 0 down
    image = to_uint8(picture(3, (40, 60)))
    assert excess_steps(image, image, image, 8) == pytest.approx(1)
    stepped = flat + 100 * (np.arange(60) >= 32).astype(np.uint8)  # in a flat image: large but finite
    assert border_steps(stepped, 8).ratio == pytest.approx(
        (100 / 7 / 2 + 0.01) / 0.01
    )  # one of 7 borders, one axis
    assert np.isfinite(excess_steps(stepped, flat, flat, 8))


def test_wide_images_with_vertical_edges_have_no_seams() -> None:
    """Period 112 has one border in 120 rows and eight in 1000 columns; both axes have the same weight."""
    rng = np.random.default_rng(5)
    image = to_uint8(
        128 + np.repeat(rng.normal(0, 30, (1, 1000)), 120, axis=0) + rng.normal(0, 1, (120, 1000))
    )
    assert border_steps(image, 112, 56).ratio == pytest.approx(1, abs=0.5)
    rows = np.abs(np.diff(image.astype(float), axis=0)).mean()
    columns = np.abs(np.diff(image.astype(float), axis=1)).mean()
    assert columns > 15 * rows
    assert border_steps(image, 112, 56).elsewhere == pytest.approx((rows + columns) / 2, rel=0.05)
    assert border_steps(image, 500, 7).elsewhere == pytest.approx(columns, rel=0.05)  # columns only
    assert border_steps(image.T, 500, 7) == border_steps(image, 500, 7)


def test_windows_are_distinguished_from_the_tokens_below_them() -> None:
    shape = (250, 360)
    tokens = (
        picture(1, shape)
        + 10 * np.random.default_rng(0).normal(0, 1, (32, 45)).repeat(8, 0).repeat(8, 1)[:250]
    )
    both = tokens + blocks(0, shape, 112, 56, 20.0)
    for image, has_windows in ((tokens, False), (both, True)):
        frame = to_uint8(image)
        assert border_steps(frame, 8).ratio > 2
        assert border_steps(frame, 112, 56).ratio > 2  # 56 is a border of tokens too
        assert (border_steps(frame, 112, 56, among=8).ratio > 1.5) == has_windows
        scan = scan_offsets(frame, 112)
        assert scan.rank(56, among=8) <= 14
        assert (scan.z(56, among=8) > 5) == has_windows
        assert (scan.rank(56, among=8) == 1) or not has_windows
        assert scan.z(3, among=8) < 5


def test_a_second_grid_does_not_hide_the_first_one() -> None:
    shape = (250, 360)
    image = picture(2, shape) + blocks(0, shape, 112, 0, 15.0) + blocks(1, shape, 112, 56, 15.0)
    scan = scan_offsets(to_uint8(image), 112)
    assert scan.z(0) > 10
    assert scan.z(56) > 10
    assert {scan.rank(0), scan.rank(56)} == {1, 2}


def test_z_and_rank_by_hand() -> None:
    scan = Scan((1.0, 1.1, 3.0, 0.9, 1.2))
    assert scan.z(2) == pytest.approx((3.0 - 1.05) / (1.4826 * 0.1))
    assert scan.z(7) == scan.z(2)
    assert [scan.rank(offset) for offset in range(5)] == [4, 3, 1, 5, 2]
    of_six = Scan((1.0, 5.0, 1.5, 5.0, 1.1, 5.0))
    assert of_six.rank(2, among=2) == 1
    assert of_six.rank(2) == 4
    assert of_six.z(2, among=2) == pytest.approx((1.5 - 1.05) / (1.4826 * 0.05))
    assert Scan((1.0, 1.0, 1.0, 2.0)).z(3) == pytest.approx(1 / 0.001)
    assert [Scan((1.0, 2.0, 2.0)).rank(offset) for offset in range(3)] == [3, 1, 1]
    assert Scan((2.0, 1.0)).z(0) == pytest.approx(1000)


GOOD = to_uint8(picture(0, (30, 40)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: border_steps(GOOD, 40),
            "image: 40x30 with period 40; expected a period below",
        ),
        (lambda: border_steps(GOOD, 500), "period 500"),
        (lambda: excess_steps(GOOD, GOOD, GOOD, 112), "x: 40x30 with period 112"),
        (lambda: scan_offsets(GOOD, 112), "image: 40x30 with period 112"),
        (lambda: border_steps(GOOD, 1), "period: 1; expected at least 2"),
        (lambda: scan_offsets(GOOD, 0), "period: 0; expected at least 2"),
        (lambda: border_steps(GOOD, -8), "period: -8"),
        (lambda: border_steps(GOOD, 8.0), "period: 8.0; expected a whole number"),  # type: ignore[arg-type]
        (lambda: border_steps(GOOD, 8, 0.5), "offset: 0.5; expected a whole number"),  # type: ignore[arg-type]
        (lambda: border_steps(GOOD, 8, among=3), "among: 3; expected a smaller divisor of the period, 8"),
        (lambda: border_steps(GOOD, 8, among=8), "among: 8; expected a smaller divisor"),
        (lambda: border_steps(GOOD, 8, among=0), "among: 0; expected at least 1"),
        (lambda: scan_offsets(GOOD, 8).z(0, among=8), "among: 8"),
        (lambda: excess_steps(GOOD, GOOD[:-1], GOOD, 8), "sizes differ: x 40x30, y 40x29, fused 40x30"),
        (lambda: scan_offsets(GOOD, 8, [GOOD[:, :9]]), "image 40x30, source 0 9x30"),
        (lambda: border_steps(GOOD / 255, 8), "image: float64; expected uint8 or uint16"),
        (lambda: excess_steps(GOOD, GOOD, None, 8), "fused: object"),
        (lambda: scan_offsets(GOOD, 8, [[[1, 2], [3]]]), "source 0: a list that is not an array"),
        (lambda: border_steps(GOOD[0], 8), r"image: shape \[40\]"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(call: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as raised:
        call()
    assert "\n" not in str(raised.value)


@pytest.fixture(scope="module")
def sources(val_pairs: Path) -> dict[str, list[tuple[Any, Any]]]:
    """Return the pairs of each task."""
    return {
        task: [(read_image(pair.x), read_image(pair.y)) for pair in find_pairs(val_pairs / task)]
        for task in ("vif", "mef", "mff")
    }


@pytest.mark.parametrize("task", ["vif", "mef", "mff"])
def test_real_sources_have_no_grid_of_seven_or_nine(
    sources: dict[str, list[tuple[Any, Any]]], task: str
) -> None:
    for period in (7, 9):
        ratios = [border_steps(image, period).ratio for pair in sources[task] for image in pair]
        assert np.mean(ratios) == pytest.approx(1, abs=0.03)
        assert all(ratio == pytest.approx(1, abs=0.15) for ratio in ratios)


def test_the_grid_of_jpeg_in_real_sources_does_not_count_for_the_fused_image(
    sources: dict[str, list[tuple[Any, Any]]],
) -> None:
    for x, y in sources["vif"]:
        assert scan_offsets(x, 8).rank() == 1
        assert border_steps(x, 8).ratio > 1.1
        mean = ((x.astype(np.uint16) + y[..., None] + 1) // 2).astype(np.uint8)
        assert 0.9 < excess_steps(x, y, mean, 8) < 1.02
        h, w = mean.shape[:2]
        seamed = to_uint8(mean + blocks(0, (h, w), 8, 0, 4.0)[..., None])
        assert excess_steps(x, y, seamed, 8) > 1.2
