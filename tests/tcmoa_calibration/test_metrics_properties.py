"""Properties for any images: ranges, symmetry, the best value for identical images, worse with noise."""

from itertools import pairwise

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from tcmoa_calibration import metrics
from tcmoa_calibration.metrics.phase import phase_features
from tcmoa_calibration.metrics.planes import Planes

Image = NDArray[np.uint8]

IDEAL = {
    "MI": None,  # 2 H(F)
    "NMI": 2,
    "Qncie": None,
    "PSNR": 150,
    "CC": 1,
    "VIF": 2,
    "VIFF": 1,
    "SSIM": 1,
    "MS-SSIM": 1,
    "MEF-SSIM": 1,
    "Qabf": 0.9748,
    "Qg": 0.9867,
    "Qs": 1,
    "Qw": 1,
    "Qe": 1,
    "Qc": 1,
    "Qp": 1,
    "Qcb": 1,
    "FMI": 1,
    "Qcv": 0,
    "CE": 0,
    "MSE": 0,
    "RMSE": 0,
}
"""Values of identical images."""

RANGES = {
    "EN": (0, 8),
    "SD": (0, 127.5),
    "MI": (0, 16),
    "NMI": (0, 2),
    "Qncie": (0.8018, 1),
    "PSNR": (0, 150),
    "MSE": (0, 1),
    "RMSE": (0, 1),
    "CC": (-1, 1),
    "SCD": (-2, 2),
    "VIF": (0, np.inf),
    "VIFF": (0, np.inf),
    "SSIM": (-1, 1),
    "MS-SSIM": (0, 1),
    "MEF-SSIM": (0, 1),
    "Qabf": (0, 0.975),
    "Qg": (0, 0.987),
    "Qs": (-1, 1),
    "Qw": (-1, 1),
    "Qe": (-1, 1),
    "Qc": (-1, 1),
    "Qp": (-1, 1),
    "Qcb": (0, 1),
    "Qcv": (0, np.inf),
    "FMI": (0, 1),
}

WORSE_WITH_NOISE = sorted(set(IDEAL) - {"CE"})
WORSE_WITH_BLUR = sorted(set(IDEAL) - {"CE", "Qncie"})


@st.composite
def images_of_one_size(draw: st.DrawFn, count: int = 3) -> list[Image]:
    """`count` images of one size: smooth shapes, steps, noise, saturated and flat parts."""
    h, w = draw(st.integers(44, 60)), draw(st.integers(44, 60))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    images = []
    for _ in range(count):
        image = ndimage.gaussian_filter(rng.normal(0, 1, (h, w)), draw(st.sampled_from([0.5, 1.5, 4.0])))
        image = 128 + draw(st.sampled_from([5, 40, 120])) * image / image.std()
        if draw(st.booleans()):
            image[: h // 2, : w // 3] = draw(st.sampled_from([0, 77, 255]))
        images.append(np.clip(np.round(image), 0, 255).astype(np.uint8))
    return images


def noisy(image: Image, sigma: float, seed: int = 0) -> Image:
    noise = np.random.default_rng(seed).normal(0, 1, image.shape)
    return np.clip(np.round(image + sigma * noise), 0, 255).astype(np.uint8)


@given(images_of_one_size(), st.sampled_from(metrics.PROFILES))
@settings(max_examples=25)
def test_metrics_are_symmetric_in_the_sources_and_within_range(
    images: list[Image], profile: metrics.Profile
) -> None:
    x, y, fused = images
    found, swapped = (metrics.evaluate(*pair, fused, profile=profile) for pair in ((x, y), (y, x)))
    assert list(found) == list(metrics.METRICS)
    for name, value in found.items():
        assert value == pytest.approx(swapped[name], rel=1e-9, abs=1e-9), name
    if profile == "correct":
        for name, (low, high) in RANGES.items():
            assert low - 1e-9 <= found[name] <= high + 1e-9, name


@given(images_of_one_size(2))
@settings(max_examples=20)
def test_identical_images_give_the_ideal_value_and_nothing_beats_it(images: list[Image]) -> None:
    x, other = images
    best, worse = metrics.evaluate(x, x, x), metrics.evaluate(x, x, other)
    for name, ideal in IDEAL.items():
        if ideal is not None:
            assert best[name] == pytest.approx(ideal, abs=2e-4), name
        if name in {"MI", "VIF", "VIFF", "CE", "Qncie"}:
            continue  # can be exceeded by more contrast or fewer shared levels
        if metrics.METRICS[name].higher_is_better:
            assert worse[name] <= best[name] + 1e-9, name
        else:
            assert worse[name] >= best[name] - 1e-9, name
    assert best["MI"] == pytest.approx(2 * best["EN"], abs=1e-9)
    assert worse["MI"] <= best["MI"] + 1e-9


@given(images_of_one_size())
@settings(max_examples=10)
def test_qp_of_mefb_is_at_most_one(images: list[Image]) -> None:
    assert -1 <= metrics.qp(*images, profile="mefb") <= 1 + 1e-9


def test_qp_of_mefb_is_highest_for_the_sources(photograph: Image, other_photograph: Image) -> None:
    same = metrics.qp(photograph, photograph, photograph, profile="mefb")
    of_source = metrics.qp(photograph, other_photograph, photograph, profile="mefb")
    average = (photograph // 2) + (other_photograph // 2)
    of_average = metrics.qp(photograph, other_photograph, average, profile="mefb")
    assert 1 > same > 0.9 > of_source > of_average > 0


def test_qp_of_mefb_gets_worse_with_compression(photograph: Image, other_photograph: Image) -> None:
    """MEFB's low values of JPEG pairs fit fused images stored as JPEG."""
    sources = photograph, other_photograph
    fused = np.maximum(*sources)
    steps = [cv2.imencode(".jpg", fused, [cv2.IMWRITE_JPEG_QUALITY, q])[1] for q in (95, 75, 40)]
    stored = [fused, *(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE) for data in steps)]
    values = [metrics.qp(*sources, image, profile="mefb") for image in stored]
    assert all(a > b for a, b in pairwise(values)), values


def test_metrics_get_worse_with_noise(photograph: Image) -> None:
    names = WORSE_WITH_NOISE
    steps = [
        metrics.evaluate(photograph, photograph, noisy(photograph, s), names=names) for s in (0, 4, 12, 36)
    ]
    for name in names:
        sign = 1 if metrics.METRICS[name].higher_is_better else -1
        values = [sign * step[name] for step in steps]
        assert all(a > b for a, b in pairwise(values)), (name, values)


def test_metrics_get_worse_with_blur(photograph: Image) -> None:
    names = WORSE_WITH_BLUR
    blurred = [
        np.round(ndimage.gaussian_filter(photograph.astype(float), s)).astype(np.uint8) for s in (0, 1, 2, 4)
    ]
    steps = [metrics.evaluate(photograph, photograph, image, names=names) for image in blurred]
    for name in names:
        sign = 1 if metrics.METRICS[name].higher_is_better else -1
        values = [sign * step[name] for step in steps]
        assert all(a > b for a, b in pairwise(values)), (name, values)


def test_a_source_is_better_than_an_unrelated_image(photograph: Image, other_photograph: Image) -> None:
    unrelated = np.ascontiguousarray(np.rot90(other_photograph, 2))
    good = metrics.evaluate(photograph, other_photograph, photograph)
    bad = metrics.evaluate(photograph, other_photograph, unrelated)
    for name in sorted(set(IDEAL) - {"CE"}):
        sign = 1 if metrics.METRICS[name].higher_is_better else -1
        assert sign * good[name] > sign * bad[name], name


@given(images_of_one_size())
@settings(max_examples=15)
def test_positions_do_not_matter_for_histograms(images: list[Image]) -> None:
    names = ["EN", "SD", "MI", "NMI", "Qncie", "CE", "PSNR", "MSE", "RMSE", "CC", "SCD"]
    order = np.random.default_rng(0).permutation(images[0].size)
    shuffled = [image.ravel()[order].reshape(image.shape) for image in images]
    before, after = metrics.evaluate(*images, names=names), metrics.evaluate(*shuffled, names=names)
    assert after == pytest.approx(before, rel=1e-9, abs=1e-9)


@given(images_of_one_size())
@settings(max_examples=15)
def test_mirrored_and_negative_images_have_the_same_values(images: list[Image]) -> None:
    mirrored = metrics.evaluate(*(np.ascontiguousarray(image[:, ::-1]) for image in images))
    negative = metrics.evaluate(*(255 - image for image in images))
    before = metrics.evaluate(*images)
    for name in ("EN", "MI", "PSNR", "SSIM", "Qs", "Qw", "Qc", "Qg", "AG", "EI", "SF", "Qcb"):
        assert mirrored[name] == pytest.approx(before[name], rel=1e-9, abs=1e-9), name
    for name in ("EN", "SD", "MI", "PSNR", "CC", "SCD", "VIF", "VIFF", "MEF-SSIM", "AG", "EI", "SF"):
        assert negative[name] == pytest.approx(before[name], rel=1e-6, abs=1e-6), name


def test_phase_congruency_does_not_depend_on_contrast() -> None:
    step = 100 + np.random.default_rng(0).normal(0, 1, (64, 64))
    step[:, 32:] += 50
    strong, weak = phase_features(step), phase_features(step / 5)
    column = strong.congruency[32]
    assert column[8:24].max() < 0.2 < 0.6 < column[30:34].max()
    np.testing.assert_allclose(strong.congruency, weak.congruency, atol=1e-3)
    assert strong.max_moment[8:56, 31:33].mean() > 1.5 * strong.min_moment[8:56, 31:33].mean()


def test_shared_results_are_computed_once() -> None:
    calls = []

    def total(planes: Planes) -> float:
        calls.append(planes)
        return float(planes.f.sum())

    planes = Planes(*(np.ones((4, 5)) for _ in range(3)))
    assert planes.cached(total) == planes.cached(total) == 20
    assert len(calls) == 1


@given(images_of_one_size(), st.sampled_from(metrics.PROFILES))
@settings(max_examples=8)
def test_single_metrics_equal_those_of_evaluate(images: list[Image], profile: metrics.Profile) -> None:
    together = metrics.evaluate(*images, profile=profile)
    for name, entry in metrics.METRICS.items():
        assert entry.function(*images, profile=profile) == together[name]
