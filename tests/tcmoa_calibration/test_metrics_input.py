"""Accepted and refused images, and edge cases of the formulas."""

import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tcmoa_calibration import metrics
from tcmoa_calibration.luma import rounded_luma
from tcmoa_calibration.metrics.planes import Triple
from tcmoa_runtime.errors import InputError, TcmoaError
from tcmoa_runtime.install import install_command
from tcmoa_runtime.options.evaluate import METRIC_NAMES

Image = NDArray[np.uint8]
SHAPE = (48, 52)
PROFILES = metrics.PROFILES


def flat(level: int) -> Image:
    return np.full(SHAPE, level, np.uint8)


def textured(seed: int = 0) -> Image:
    return np.random.default_rng(seed).integers(0, 256, SHAPE, dtype=np.uint8)


def to_color(image: Image) -> Image:
    return np.stack([image, np.roll(image, 1, 0), np.roll(image, 2, 1)], axis=-1)


EDGE_CASES = {
    "all black": (flat(0), flat(0), flat(0)),
    "all white": (flat(255), flat(255), flat(255)),
    "one level": (flat(90), flat(90), flat(90)),
    "three levels": (flat(10), flat(90), flat(200)),
    "flat x": (flat(0), textured(), textured()),
    "flat sources": (flat(20), flat(120), textured()),
    "black sources": (flat(0), flat(0), textured()),
    "flat fused": (textured(), textured(1), flat(128)),
    "black fused": (textured(), textured(1), flat(0)),
    "identical": (textured(), textured(), textured()),
    "identical sources": (textured(), textured(), textured(2)),
    "two levels": tuple(np.where(textured(k) > 127, 255, 0).astype(np.uint8) for k in range(3)),
    "one pixel": (np.pad(np.full((1, 1), 255, np.uint8), ((20, 27), (20, 31))), flat(0), flat(0)),
}


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("case", EDGE_CASES)
def test_edge_cases_are_finite(case: str, profile: metrics.Profile) -> None:
    found = metrics.evaluate(*EDGE_CASES[case], profile=profile)
    assert list(found) == list(metrics.METRICS)
    assert all(type(value) is float and math.isfinite(value) for value in found.values())


@pytest.mark.parametrize("level", [0, 90, 255])
def test_constant_images_are_as_documented(level: int) -> None:
    found = metrics.evaluate(flat(level), flat(level), flat(level))
    zero = ["EN", "SD", "Variance", "MI", "CE", "MSE", "RMSE", "Qcv"]
    one = ["CC", "VIFF", "SSIM", "MS-SSIM", "MEF-SSIM", "Qs", "Qw", "Qe", "Qc", "Qp", "Qcb", "FMI"]
    expected = dict.fromkeys(zero, 0.0) | dict.fromkeys(one, 1.0)
    expected |= {"NMI": 2.0, "VIF": 2.0, "PSNR": 150.0, "SCD": 2.0, "Qncie": 1 - math.log(3, 256)}
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-9)
    assert found["Qabf"] == pytest.approx(0.97479, abs=1e-5)
    assert found["Qg"] == pytest.approx(0.98670, abs=1e-4)


def test_a_constant_source_has_no_information() -> None:
    photo = textured()
    found = metrics.evaluate(flat(0), photo, photo, names=["VIF", "MI", "CC", "Qabf"])
    assert found["VIF"] == pytest.approx(1, abs=1e-6)
    assert found["MI"] == pytest.approx(metrics.en(photo, photo, photo))
    assert found["CC"] == pytest.approx(0.5)
    assert found["Qabf"] == pytest.approx(0.97479, abs=1e-5)  # no gradient, no weight
    assert metrics.qabf(flat(0), flat(0), photo) == metrics.qg(flat(0), flat(0), photo) == 0


def test_uint16_is_divided_by_257() -> None:
    images = [textured(k) for k in range(3)]
    wide = [image.astype(np.uint16) * 257 + k for k, image in zip((0, 0, 0), images, strict=True)]
    assert metrics.evaluate(*wide) == metrics.evaluate(*images)
    mixed = metrics.evaluate(wide[0], images[1], images[2])
    assert mixed == metrics.evaluate(*images)
    near = np.array([[0, 128, 129, 65535]], np.uint16)
    assert Triple(near, near, near).images[0].tolist() == [[0, 0, 1, 255]]


def test_color_becomes_luma_or_three_measurements() -> None:
    x, y, f = (to_color(textured(k)) for k in range(3))
    lumas = [rounded_luma(image).astype(np.uint8) for image in (x, y, f)]
    assert metrics.ssim(x, y, f) == metrics.ssim(*lumas)
    by_channel = [metrics.ssim(x[..., c], y[..., c], f[..., c], profile="vifb") for c in range(3)]
    assert metrics.ssim(x, y, f, profile="vifb") == pytest.approx(np.mean(by_channel))
    assert metrics.ssim(x, y, f, profile="tang") == metrics.ssim(x, y, f)


def test_one_and_three_channels_mix() -> None:
    x, y, f = (textured(k) for k in range(3))
    color = to_color(y)
    gray = rounded_luma(color).astype(np.uint8)
    assert metrics.ssim(x, color, f) == metrics.ssim(x, gray, f)
    assert metrics.ssim(x, color, f, profile="vifb") == metrics.ssim(x, gray, f, profile="vifb")
    fused = to_color(f)
    each = [metrics.ssim(x, color[..., c], fused[..., c], profile="vifb") for c in range(3)]
    assert metrics.ssim(x, color, fused, profile="vifb") == pytest.approx(np.mean(each))
    stacked = np.repeat(x[..., None], 3, axis=2)
    for profile in PROFILES:
        before = metrics.evaluate(x, y, f, profile=profile)
        assert metrics.evaluate(stacked, y[..., None], f, profile=profile) == before
    with_alpha = np.concatenate([color, np.full((*SHAPE, 1), 9, np.uint8)], axis=2)
    assert metrics.ssim(x, with_alpha, f) == metrics.ssim(x, color, f)


GOOD = textured()
HOLED = np.where(np.eye(*SHAPE) > 0, np.nan, 0.5)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ((GOOD, GOOD[:-1], GOOD), "sizes differ: x 52x48, y 52x47, fused 52x48; expected one size"),
        ((GOOD, GOOD, HOLED), "fused: float64 with NaN or infinity"),
        ((GOOD / 255, GOOD, GOOD), "x: float64; expected uint8 or uint16"),
        ((GOOD, GOOD > 3, GOOD), "y: bool"),
        ((GOOD, GOOD.astype(np.int64), GOOD), "y: int64"),
        ((GOOD, GOOD, GOOD[None]), r"fused: shape \[1, 48, 52\]"),
        ((GOOD, GOOD, np.zeros((48, 52, 2), np.uint8)), r"fused: shape \[48, 52, 2\]"),
        ((GOOD[:0], GOOD[:0], GOOD[:0]), "expected at least one pixel"),
        ((None, GOOD, GOOD), "x: object"),
        (("photo.png", GOOD, GOOD), "x: <U9"),
        (([[1, 2], [3]], GOOD, GOOD), "x: a list that is not an array"),
    ],
)
def test_other_arrays_are_refused_in_one_line(images: tuple[Any, Any, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as raised:
        metrics.evaluate(*images)
    assert "\n" not in str(raised.value)
    with pytest.raises(InputError, match=message):
        metrics.en(*images)


def test_unknown_names_and_profiles_are_refused() -> None:
    with pytest.raises(InputError, match="metric: 'Qfoo'; expected one of SD"):
        metrics.evaluate(GOOD, GOOD, GOOD, names=["EN", "Qfoo"])
    wrong: Any = "matlab"
    with pytest.raises(InputError, match="profile: 'matlab'; expected one of correct, as-published"):
        metrics.evaluate(GOOD, GOOD, GOOD, profile=wrong)
    with pytest.raises(InputError, match="profile: 'matlab'"):
        metrics.qabf(GOOD, GOOD, GOOD, profile=wrong)


def test_results_have_the_order_of_the_names() -> None:
    assert list(metrics.evaluate(GOOD, GOOD, GOOD, names=("SSIM", "EN"))) == ["SSIM", "EN"]
    assert list(metrics.evaluate(GOOD, GOOD, GOOD, names="SSIM")) == ["SSIM"]
    assert metrics.evaluate(GOOD, GOOD, GOOD, names=[]) == {}


@pytest.mark.parametrize("name", metrics.METRICS)
def test_the_minimum_size_is_enough_and_one_pixel_less_is_refused(name: str) -> None:
    entry = metrics.METRICS[name]
    side = entry.min_side
    for profile in PROFILES:
        for image in (textured()[:side, :side], flat(7)[:side, :side]):
            assert math.isfinite(entry.function(image, image, image, profile=profile))
    if side > 1:
        small = textured()[: side - 1, :side]
        with pytest.raises(
            InputError, match=rf"^{name}: {side - 1} px on the shorter side; expected at least {side} px"
        ):
            entry.function(small, small, small)


def test_every_metric_is_documented() -> None:
    for name, entry in metrics.METRICS.items():
        public: Any = entry.function
        assert entry.name == name
        assert getattr(metrics, public.__name__) is public
        assert public.__name__ in metrics.__all__
        assert public.__doc__
        for section in ("Source:", "Range:", "Profiles:", "Args:", "Returns:"):
            assert section in public.__doc__, (name, section)
        direction = "higher is better" if entry.higher_is_better else "lower is better"
        assert direction in " ".join(public.__doc__.split()).lower(), name
        assert entry.needs in {("fused",), ("x", "y", "fused")}
    assert {n for n, m in metrics.METRICS.items() if not m.higher_is_better} == {"Qcv", "CE", "MSE", "RMSE"}
    assert list(metrics.__all__) == sorted(metrics.__all__, key=lambda n: (not n.isupper(), n.islower(), n))


def test_options_list_the_metrics_in_their_order() -> None:
    assert list(metrics.METRICS) == list(METRIC_NAMES)


def test_metrics_of_the_fused_image_alone_ignore_the_sources() -> None:
    for name, entry in metrics.METRICS.items():
        values = {entry.function(textured(k), textured(k + 1), GOOD) for k in (1, 5)}
        assert (len(values) == 1) == (entry.needs == ("fused",)), name


def test_images_are_not_changed() -> None:
    images = [to_color(textured(k)) for k in range(3)]
    before = [image.copy() for image in images]
    for image in images:
        image.setflags(write=False)
    metrics.evaluate(*images, profile="vifb")
    assert all(np.array_equal(a, b) for a, b in zip(images, before, strict=True))


def test_a_result_that_is_not_finite_is_an_internal_error(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = metrics.METRICS["EN"]
    broken = metrics.Metric(
        "EN", entry.function, True, entry.needs, 1, "correct", lambda planes, convention: math.nan
    )
    with pytest.raises(TcmoaError, match=r"^EN: internal error: the result is nan"):
        broken.compute(Triple(GOOD, GOOD, GOOD))


def python(code: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_importing_metrics_imports_nothing_heavy() -> None:
    heavy = {"torch", "onnx", "onnxruntime", "cv2", "skimage", "tensorrt", "tcmoa", "tcmoa_export"}
    outcome = python(
        f"import sys\nfrom tcmoa_calibration import metrics\nprint(sorted(sys.modules.keys() & {heavy!r}))"
    )
    assert (outcome.stdout, outcome.stderr) == ("[]\n", "")


def test_without_scipy_the_error_names_the_extra() -> None:
    code = """
import sys
sys.modules["scipy"] = sys.modules["scipy.fft"] = None
from tcmoa_runtime.errors import MissingError
try:
    import tcmoa_calibration.metrics
except MissingError as error:
    print(error)
"""
    outcome = python(code)
    assert (
        outcome.stdout
        == f"metrics: the package scipy is not installed. Run `{install_command('calibration')}`\n"
    )
