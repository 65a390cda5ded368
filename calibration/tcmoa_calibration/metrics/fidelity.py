"""Pixelwise differences between the fused image and its sources: PSNR, MSE, RMSE, CC, SCD."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from tcmoa_calibration.luma import Plane
from tcmoa_calibration.metrics.planes import Planes
from tcmoa_calibration.metrics.registry import Convention, metric

PEAK: Final = 255.0

MAX_PSNR: Final = 150.0
"""PSNR in dB of identical images; one level in one pixel of 100 megapixels gives 131 dB."""


def _squared_errors(planes: Planes) -> tuple[float, float]:
    """Return sum((A - F)^2) and sum((B - F)^2)."""
    return float(np.sum((planes.a - planes.f) ** 2)), float(np.sum((planes.b - planes.f) ** 2))


@metric("PSNR", published="vifb")
def psnr(planes: Planes, convention: Convention) -> float:
    """Compute the peak signal-to-noise ratio 10 log10(255^2 / MSE), with the mean of the MSE against A and B.

    The average of the sources has the highest PSNR of all images, whatever it looks like.

    Source: Jagalingam, Hegde 2015.
    Range: 0 to 150 dB (identical images, MSE 0); higher is better.
    Profiles: `vifb`, `mefb` and `as-published` take sqrt(sum((A - F)^2)) / (H W) for the MSE, which gives about 57 dB
    for any image and rises with its size. `tang` keeps the peak 255 for images in 0..1: 48.13 dB above the correct
    value.
    """
    errors = planes.cached(_squared_errors)
    if convention in ("vifb", "mefb"):
        mse = sum(math.sqrt(error) for error in errors) / (2 * planes.f.size)
    else:
        mse = sum(errors) / (2 * planes.f.size)
    if convention == "tang":
        mse /= PEAK**2
    return min(10 * math.log10(PEAK**2 / mse), MAX_PSNR) if mse > 0 else MAX_PSNR


@metric("MSE", higher_is_better=False)
def mse(planes: Planes, convention: Convention) -> float:
    """Compute the mean of the mean squared errors against A and B, for images in 0..1.

    Source: Jagalingam, Hegde 2015.
    Range: 0 (identical images) to 1; lower is better.
    Profiles: differ in the treatment of color only.
    """
    return sum(planes.cached(_squared_errors)) / (2 * planes.f.size * PEAK**2)


@metric("RMSE", higher_is_better=False, published="vifb")
def rmse(planes: Planes, convention: Convention) -> float:
    """Compute the mean of the root mean squared errors against A and B, for images in 0..1.

    Source: Jagalingam, Hegde 2015.
    Range: 0 (identical images) to 1; lower is better.
    Profiles: `vifb`, `mefb` and `as-published` print sqrt(sum((A - F)^2)) / (H W) in gray levels under this name, which
    falls with the size of the image; their PSNR is computed from it.
    """
    errors = planes.cached(_squared_errors)
    if convention in ("vifb", "mefb"):
        return sum(math.sqrt(error) for error in errors) / (2 * planes.f.size)
    return sum(math.sqrt(error / planes.f.size) for error in errors) / (2 * PEAK)


def correlation(first: Plane, second: Plane) -> float:
    """Compute Pearson's correlation; a constant plane has 1 with a constant one and 0 with any other."""
    flat = [bool(np.ptp(plane) == 0) for plane in (first, second)]
    if any(flat):
        return float(all(flat))
    p, q = first - first.mean(), second - second.mean()
    spread = math.sqrt(float(np.sum(p * p)) * float(np.sum(q * q)))
    return float(np.sum(p * q)) / spread


@metric("CC")
def cc(planes: Planes, convention: Convention) -> float:
    """Compute the mean correlation coefficient of the fused image with A and with B.

    Source: Deshmukh, Bhosale 2010.
    Range: -1 to 1 (identical images); higher is better. A constant image correlates 1 with a constant one and 0 with
    any other.
    Profiles: differ in the treatment of color only.
    """
    return (correlation(planes.a, planes.f) + correlation(planes.b, planes.f)) / 2


@metric("SCD")
def scd(planes: Planes, convention: Convention) -> float:
    """Compute the sum of the correlations of differences, r(F - B, A) + r(F - A, B).

    Source: Aslantas, Bendes 2015.
    Range: -2 to 2 (F = A + B); higher is better. Identical images do not reach 2: F - B is constant then, and
    correlates 0 with A (1 if A is constant too).
    Profiles: differ in the treatment of color only.
    """
    return correlation(planes.f - planes.b, planes.a) + correlation(planes.f - planes.a, planes.b)
