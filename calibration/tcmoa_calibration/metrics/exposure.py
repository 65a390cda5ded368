"""Structure of the source with the best contrast at each place: MEF-SSIM, which fusion papers also print as MS-SSIM."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from tcmoa_calibration.luma import Plane
from tcmoa_calibration.metrics.planes import Planes
from tcmoa_calibration.metrics.registry import Convention, metric
from tcmoa_calibration.metrics.structure import SIDE, TAPS, Moments, gaussian_moments, moments

LEVELS: Final = 3
WEIGHTS: Final = np.array([0.0448, 0.2856, 0.3001]) / (0.0448 + 0.2856 + 0.3001)
CONSTANT: Final = (0.03 * 255) ** 2
MAX_POWER: Final = 10.0
MIN_SIDE: Final = SIDE * 2 ** (LEVELS - 1)


def _halve(plane: Plane) -> Plane:
    """Average 2x2 pixels; an odd last row or column is dropped."""
    h, w = plane.shape[0] // 2 * 2, plane.shape[1] // 2 * 2
    p = plane[:h, :w]
    quarter: Plane = (p[::2, ::2] + p[1::2, ::2] + p[::2, 1::2] + p[1::2, 1::2]) / 4
    return quarter


def reference_similarity(m: Moments) -> Plane:
    """Compute the similarity of F with the reference patch at every place.

    The reference patch has the best contrast and the mean structure of the patches of A and B.
    """
    sd_a, sd_b = np.sqrt(m.var_a), np.sqrt(m.var_b)
    both = sd_a + sd_b
    summed = np.sqrt(np.maximum(m.var_a + m.var_b + 2 * m.cov_ab, 0))
    agreement = np.where(both > 0, np.minimum(summed / np.where(both > 0, both, 1), 1), 1)  # R
    steepness = np.tan(math.pi / 2 * np.minimum(agreement, 1 - 1e-12))
    power = np.minimum(steepness, MAX_POWER)
    contrast = np.maximum(sd_a, sd_b)
    scale = np.where(contrast > 0, contrast, 1)  # weights sd^p do not overflow when divided by the larger one
    weight_a, weight_b = (sd_a / scale) ** power, (sd_b / scale) ** power
    total = np.where(weight_a + weight_b > 0, weight_a + weight_b, 1)
    # The mean structure is wa * A + wb * B of unit patches; moments give its length and its covariance with F.
    wa = np.where(sd_a > 0, weight_a / total / np.where(sd_a > 0, sd_a, 1), 0)
    wb = np.where(sd_b > 0, weight_b / total / np.where(sd_b > 0, sd_b, 1), 0)
    length = np.sqrt(np.maximum(wa * wa * m.var_a + wb * wb * m.var_b + 2 * wa * wb * m.cov_ab, 0))
    known = length > 1e-9
    covariance = np.where(known, (wa * m.cov_af + wb * m.cov_bf) / np.where(known, length, 1), 0) * contrast
    reference_variance = np.where(known, contrast * contrast, 0)
    similarity: Plane = (2 * covariance + CONSTANT) / (reference_variance + m.var_f + CONSTANT)
    return similarity


def _levels(planes: Planes) -> list[float]:
    """Return the mean similarity at each level, fine to coarse."""
    out, images = [], list(planes.all)
    for level in range(LEVELS):
        if level:
            images = [_halve(image) for image in images]
        m = planes.cached(gaussian_moments) if level == 0 else moments(images[0], images[1], images[2], TAPS)
        out.append(float(reference_similarity(m).mean()))
    return out


def _mef_ssim(planes: Planes) -> float:
    score = 1.0
    for level, weight in zip(planes.cached(_levels), WEIGHTS, strict=True):
        score *= max(level, 0.0) ** float(weight)
    return score


@metric("MEF-SSIM", min_side=MIN_SIDE)
def mef_ssim(planes: Planes, convention: Convention) -> float:
    """Compute the multi-exposure structural similarity over three levels.

    The reference patch has the contrast of the source with the higher one, and the mean structure of the sources
    weighted by contrast to the power p = tan(pi/2 R), at most 10, where R is how well they agree. Contrast and
    structure count, brightness does not: a darker fused image scores the same. Gaussian window of 11x11 px, sigma 1.5
    px; C = (0.03 * 255)^2; weights of the levels (0.0448, 0.2856, 0.3001) / 0.6305.

    Source: Ma, Zeng, Wang 2015.
    Range: 0 to 1 (identical images and constant ones); higher is better. A level below 0 counts as 0.
    Profiles: differ in the treatment of color only.
    """
    return planes.cached(_mef_ssim)


@metric("MS-SSIM", min_side=MIN_SIDE)
def ms_ssim(planes: Planes, convention: Convention) -> float:
    """Compute MEF-SSIM under the name that fusion papers print it by.

    It is not the MS-SSIM of two images of Wang, Simoncelli, Bovik 2003.

    Source: Ma, Zeng, Wang 2015.
    Range: 0 to 1, as MEF-SSIM; higher is better.
    Profiles: differ in the treatment of color only.
    """
    return planes.cached(_mef_ssim)
