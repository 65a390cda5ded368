"""Values that VIFB and Tang's evaluation published for their own files."""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from tcmoa_calibration import metrics
from tcmoa_calibration.baselines import BASELINES

VIFB_NAMES = {
    "Entropy": "EN",
    "Psnr": "PSNR",
    "Mutinf": "MI",
    "Ssim": "SSIM",
    "Variance": "Variance",
    "Qcb": "Qcb",
    "Qcv": "Qcv",
    "Qabf": "Qabf",
    "Rmse": "RMSE",
    "Cross_entropy": "CE",
    "Avg_gradient": "AG",
    "Edge_intensity": "EI",
    "Spatial_frequency": "SF",
}
TANG_EXACT = ("EN", "SD", "PSNR", "MSE", "AG", "CC", "SCD", "SF", "Qabf")
TANG_WITHIN = {"MI": 5e-12, "VIF": 1e-12}


def entries(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder / "values.json").read_text())["entries"]
    return found


def read(path: Path) -> NDArray[Any]:
    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert image is not None, path
    return np.asarray(image if image.ndim == 2 else image[..., ::-1])


def triple(folder: Path, entry: dict[str, Any], first: str, second: str) -> list[NDArray[Any]]:
    return [read(folder / entry[key]) for key in (first, second, "fused")]


def same_digits(value: float, printed: str) -> bool:
    """Whether `value`, rounded to five significant digits as MATLAB prints, is `printed`."""
    return Decimal(f"{value:.5g}") == Decimal(printed)


@pytest.mark.parametrize("number", range(15))
def test_vifb_agrees_in_all_printed_digits(published: Path, number: int) -> None:
    folder = published / "vifb"
    entry = entries(folder)[number]
    images = triple(folder, entry, "visible", "infrared")
    found = metrics.evaluate(*images, profile="vifb", names=VIFB_NAMES.values())
    wrong = {
        name: (found[name], entry["values"][vifb_name])
        for vifb_name, name in VIFB_NAMES.items()
        if not same_digits(found[name], entry["values"][vifb_name])
    }
    assert not wrong


@pytest.mark.parametrize("number", range(4))
def test_tang_agrees(published: Path, number: int) -> None:
    folder = published / "tno"
    entry = entries(folder)[number]
    images = triple(folder, entry, "infrared", "visible")
    found = metrics.evaluate(*images, profile="tang", names=[*TANG_EXACT, *TANG_WITHIN])
    for name in TANG_EXACT:
        assert found[name] == pytest.approx(entry["values"][name], rel=1e-13), name
    for name, within in TANG_WITHIN.items():
        assert abs(found[name] - entry["values"][name]) < within, name


@pytest.mark.parametrize("toolbox", ["vifb", "tang"])
def test_as_published_computes_each_metric_as_its_toolbox(published: Path, toolbox: metrics.Profile) -> None:
    folder = published / "vifb"
    images = triple(folder, entries(folder)[0], "visible", "infrared")
    names = [name for name, entry in metrics.METRICS.items() if entry.published == toolbox]
    assert names
    as_published = metrics.evaluate(*images, profile="as-published", names=names)
    assert as_published == metrics.evaluate(*images, profile=toolbox, names=names)


def test_published_values_are_far_from_correct_ones(published: Path) -> None:
    folder = published / "tno"
    images = triple(folder, entries(folder)[0], "infrared", "visible")
    assert metrics.sd(*images, profile="as-published") < 12 < 30 < metrics.sd(*images)
    assert metrics.psnr(*images, profile="as-published") > 55 > 25 > metrics.psnr(*images)


def test_values_of_a_new_method_are_among_those_that_mefb_published(
    peers: dict[str, Any], val_pairs: Path
) -> None:
    """A method that MEFB did not measure: values far outside of those of its 21 methods mean another definition."""
    x, y = (read(val_pairs / "mef" / f"mefb_House_{source}.png") for source in ("x", "y"))
    fused = BASELINES["mertens"].fuse(x, y)
    found = metrics.evaluate(x, y, fused, profile="mefb", names=["Qp", "VIF", "Qw"])
    for published_name, name in (("Qp", "Qp"), ("VIFF", "VIF"), ("Qw", "Qw")):
        values = [images["mefb_House"][published_name] for images in peers["methods"].values()]
        assert min(values) < found[name] < max(values), name
