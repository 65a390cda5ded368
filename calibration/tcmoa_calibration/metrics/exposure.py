"""Structure of the best-exposed source at each place: MEF-SSIM, which fusion papers print as MS-SSIM, too."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from tcmoa_calibration.metrics.frames import Plane, Planes
from tcmoa_calibration.metrics.registry import Convention, metric
from tcmoa_calibration.metrics.structure import SIDE, TAPS, Moments, gaussian_moments, moments

LEVELS: Final = 3
WEIGHTS: Final = np.array([0.0448, 0.2856, 0.3001]) / (0.0448 + 0.2856 + 0.3001)
CONSTANT: Final = (0.03 * 255) ** 2
GREATEST_POWER: Final = 10.0
MIN_SIDE: Final = SIDE * 2 ** (LEVELS - 1)


def _halved(plane: Plane) -> Plane:
    """Means of 2x2 pixels; an odd last row or column is dropped."""
    h, w = plane.shape[0] // 2 * 2, plane.shape[1] // 2 * 2
    p = plane[:h, :w]
    quarter: Plane = (p[::2, ::2] + p[1::2, ::2] + p[::2, 1::2] + p[1::2, 1::2]) / 4
    return quarter


def wanted_similarity(m: Moments) -> Plane:
    """Similarity of F with the patch that has the best contrast and the mean structure of A and B, at every place."""
    sd_a, sd_b = np.sqrt(m.var_a), np.sqrt(m.var_b)
    both = sd_a + sd_b
    summed = np.sqrt(np.maximum(m.var_a + m.var_b + 2 * m.cov_ab, 0))
    agreement = np.where(both > 0, np.minimum(summed / np.where(both > 0, both, 1), 1), 1)  # R
    steepness = np.tan(math.pi / 2 * np.minimum(agreement, 1 - 1e-12))
    power = np.minimum(steepness, GREATEST_POWER)
    greatest = np.maximum(sd_a, sd_b)
    scale = np.where(greatest > 0, greatest, 1)  # weights sd^p, kept from overflow by the greater one
    weight_a, weight_b = (sd_a / scale) ** power, (sd_b / scale) ** power
    total = np.where(weight_a + weight_b > 0, weight_a + weight_b, 1)
    # the mean structure is wa * A + wb * B of unit patches; its length and its covariance with F follow from moments
    wa = np.where(sd_a > 0, weight_a / total / np.where(sd_a > 0, sd_a, 1), 0)
    wb = np.where(sd_b > 0, weight_b / total / np.where(sd_b > 0, sd_b, 1), 0)
    length = np.sqrt(np.maximum(wa * wa * m.var_a + wb * wb * m.var_b + 2 * wa * wb * m.cov_ab, 0))
    known = length > 1e-9
    covariance = np.where(known, (wa * m.cov_af + wb * m.cov_bf) / np.where(known, length, 1), 0) * greatest
    wanted = np.where(known, greatest * greatest, 0)
    similarity: Plane = (2 * covariance + CONSTANT) / (wanted + m.var_f + CONSTANT)
    return similarity


def _levels(planes: Planes) -> list[float]:
    """The mean similarity at each level, fine to coarse."""
    out, images = [], list(planes.each)
    for level in range(LEVELS):
        if level:
            images = [_halved(image) for image in images]
        m = planes.once(gaussian_moments) if level == 0 else moments(images[0], images[1], images[2], TAPS)
        out.append(float(wanted_similarity(m).mean()))
    return out


def _mef_ssim(planes: Planes) -> float:
    score = 1.0
    for level, weight in zip(planes.once(_levels), WEIGHTS, strict=True):
        score *= max(level, 0.0) ** float(weight)
    return score


@metric("MEF-SSIM", min_side=MIN_SIDE)
def mef_ssim(planes: Planes, convention: Convention) -> float:
    """Multi-exposure structural similarity over three levels (Ma, Zeng, Wang 2015).

    The wanted patch has the contrast of the source with most of it and the structure of the sources' mean, weighted
    by contrast to the power of p = tan(pi/2 R), at most 10, where R tells how well they agree. Contrast and structure
    only, no brightness: a darker fused image scores the same. Gaussian window 11/1.5, C = (0.03 * 255)^2, levels
    weighted (0.0448, 0.2856, 0.3001) / 0.6305. 0 .. 1 (a level below 0 counts as 0), 1 for identical images and for
    constant ones; higher is better; symmetric in x and y.
    Profiles: by colour only.
    """
    return planes.once(_mef_ssim)


@metric("MS-SSIM", min_side=MIN_SIDE)
def ms_ssim(planes: Planes, convention: Convention) -> float:
    """MEF-SSIM under the name that fusion tables print it by; not the MS-SSIM of Wang 2003 for two images."""
    return planes.once(_mef_ssim)
