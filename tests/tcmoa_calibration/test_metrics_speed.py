"""All metrics of a 640x480 triple take less than three seconds on one core; SSIM equals that of scikit-image."""

import time

import numpy as np
import pytest
from numpy.typing import NDArray
from skimage import data
from skimage.metrics import structural_similarity

from tcmoa_calibration import metrics

Image = NDArray[np.uint8]
SECONDS = 3.0


@pytest.fixture(scope="module")
def scene() -> list[Image]:
    """Three gray images [480, 640]."""
    photo = np.pad(data.camera(), ((0, 0), (64, 64)), mode="reflect")[:480]
    return [photo, np.ascontiguousarray(255 - photo[::-1]), np.ascontiguousarray(photo // 2 + 60)]


@pytest.mark.parametrize("profile", ["correct", "as-published"])
def test_all_metrics_take_less_than_three_seconds(scene: list[Image], profile: metrics.Profile) -> None:
    seconds = []
    for _ in range(2):  # the first run may build tables
        start = time.process_time()
        metrics.evaluate(*scene, profile=profile)
        seconds.append(time.process_time() - start)
    assert min(seconds) < SECONDS, seconds


def test_ssim_equals_that_of_scikit_image(scene: list[Image]) -> None:
    x, y, fused = scene
    expected = [
        structural_similarity(
            source, fused, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255
        )
        for source in (x, y)
    ]
    assert metrics.ssim(x, y, fused) == pytest.approx(np.mean(expected), abs=1e-6)
