"""Pixelwise differences between fused image and sources: PSNR, MSE, RMSE, CC, SCD."""

from __future__ import annotations

import math

import numpy as np

from tcmoa_calibration.metrics.frames import Plane, Planes
from tcmoa_calibration.metrics.registry import Convention, metric

PEAK = 255.0

PSNR_OF_EQUALS = 150.0
"""dB where both sources equal the fused image; one level in one pixel of a 100-megapixel image would give 131."""


def _square_errors(planes: Planes) -> tuple[float, float]:
    """sum((A - F)^2) and sum((B - F)^2)."""
    return float(np.sum((planes.a - planes.f) ** 2)), float(np.sum((planes.b - planes.f) ** 2))


@metric("PSNR", published="vifb")
def psnr(planes: Planes, convention: Convention) -> float:
    """Peak signal-to-noise ratio 10 log10(255^2 / MSE), MSE the mean of those against A and B.

    In dB, higher is better, symmetric in x and y; 150 where both equal the fused image (MSE 0). Rewards the average
    of the sources, whatever it looks like: no image has a higher one.
    Profiles: `vifb`, `mefb` and as-published take sqrt(sum((A-F)^2)) / (H W) for the MSE, which puts any image near
    57 and rises with its size; `tang` keeps the peak 255 for images in 0..1, 48.13 dB above the correct value.
    """
    errors = planes.once(_square_errors)
    if convention in ("vifb", "mefb"):
        mse = sum(math.sqrt(error) for error in errors) / (2 * planes.f.size)
    else:
        mse = sum(errors) / (2 * planes.f.size)
    if convention == "tang":
        mse /= PEAK**2
    return min(10 * math.log10(PEAK**2 / mse), PSNR_OF_EQUALS) if mse > 0 else PSNR_OF_EQUALS


@metric("MSE", higher=False)
def mse(planes: Planes, convention: Convention) -> float:
    """Mean of the mean square errors against A and B, for images in 0..1.

    0 .. 1, lower is better, symmetric in x and y; 0 for identical images. Profiles: by colour only.
    """
    return sum(planes.once(_square_errors)) / (2 * planes.f.size * PEAK**2)


@metric("RMSE", higher=False, published="vifb")
def rmse(planes: Planes, convention: Convention) -> float:
    """Mean of the root mean square errors against A and B, for images in 0..1.

    0 .. 1, lower is better, symmetric in x and y; 0 for identical images.
    Profiles: `vifb`, `mefb` and as-published print sqrt(sum((A-F)^2)) / (H W) in grey levels under this name, the
    same that their PSNR is made of, which falls with the image's size.
    """
    if convention in ("vifb", "mefb"):
        return sum(math.sqrt(error) for error in planes.once(_square_errors)) / (2 * planes.f.size)
    return sum(math.sqrt(error / planes.f.size) for error in planes.once(_square_errors)) / (2 * PEAK)


def correlation(first: Plane, second: Plane) -> float:
    """Pearson's; of a constant plane 1 with a constant one, 0 with any other."""
    flat = [bool(np.ptp(plane) == 0) for plane in (first, second)]
    if any(flat):
        return float(all(flat))
    p, q = first - first.mean(), second - second.mean()
    spread = math.sqrt(float(np.sum(p * p)) * float(np.sum(q * q)))
    return float(np.sum(p * q)) / spread


@metric("CC")
def cc(planes: Planes, convention: Convention) -> float:
    """Mean correlation coefficient of the fused image with A and with B (Deshmukh 2010).

    -1 .. 1, 1 for identical images; higher is better; symmetric in x and y. A constant image correlates 1 with a
    constant one and 0 with any other. Profiles: by colour only.
    """
    return (correlation(planes.a, planes.f) + correlation(planes.b, planes.f)) / 2


@metric("SCD")
def scd(planes: Planes, convention: Convention) -> float:
    """Sum of the correlations of differences: r(F - B, A) + r(F - A, B) (Aslantas, Bendes 2015).

    -2 .. 2, higher is better, symmetric in x and y; 2 for F = A + B. Identical images are NOT its best: F - B is
    constant there, and correlates 0 with A (1 where A is constant as well). Profiles: by colour only.
    """
    return correlation(planes.f - planes.b, planes.a) + correlation(planes.f - planes.a, planes.b)
