"""Visible differences by the contrast sensitivity of human vision: Qcb and Qcv.

The contrast sensitivity function filters the whole image by FFT, which wraps around the borders. Images are stretched
from their minimum and maximum to 0..255 first; a constant image keeps its level.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from tcmoa_calibration.luma import Plane
from tcmoa_calibration.metrics.filters import blur, frequencies, half_frequencies, irfft2, rfft2, sobel
from tcmoa_calibration.metrics.information import stretch
from tcmoa_calibration.metrics.planes import Planes
from tcmoa_calibration.metrics.registry import Convention, metric
from tcmoa_calibration.metrics.structure import share

DOG_F0, DOG_F1, DOG_A = 15.3870, 1.3456, 0.7622
QCB_DIVISOR: Final = 30
"""The Nyquist frequency is side / 30 cycles per degree, which fixes the viewing distance."""
CONTRAST_SIDE: Final = 31
MASK_P, MASK_Q, MASK_Z = 3, 2, 1e-4
DARK: Final = 1e-9
"""Local means below this have no contrast (0 / 0), in gray levels."""

QCV_DIVISOR: Final = 8
BLOCK: Final = 16
ALPHA: Final = 5


def radial_frequency(shape: tuple[int, int], divisor: float) -> Plane:
    """Return the radial frequencies [H, W // 2 + 1] of `rfft2`; Nyquist of an axis is its length / divisor."""
    down = frequencies(shape[0]) * (shape[0] / divisor)
    across = half_frequencies(shape[1]) * (shape[1] / divisor)
    return np.hypot(down[:, None], across[None, :])


def _density_taps(sigma: float) -> Plane:
    """Return samples of the normal density, whose sum is slightly below 1."""
    at = np.arange(CONTRAST_SIDE) - CONTRAST_SIDE // 2
    taps: Plane = np.exp(-(at**2) / (2 * sigma**2)) / (np.sqrt(2 * np.pi) * sigma)
    return taps


def _stretched_planes(planes: Planes) -> tuple[Plane, Plane, Plane]:
    a, b, f = (stretch(plane) for plane in planes.all)
    return a, b, f


def _masked_contrast(plane: Plane, sensitivity: Plane) -> Plane:
    visible = irfft2(rfft2(plane) * sensitivity, (plane.shape[0], plane.shape[1]))
    near, wide = blur(visible, _density_taps(2), "zero"), blur(visible, _density_taps(4), "zero")
    bright = np.abs(wide) > DARK
    contrast = np.where(bright, np.abs(near / np.where(bright, wide, 1) - 1), 0)
    masked: Plane = contrast**MASK_P / (contrast**MASK_Q + MASK_Z)
    return masked


@metric("Qcb", published="vifb")
def qcb(planes: Planes, convention: Convention) -> float:
    """Compute the Chen-Blum metric: the preserved part of each source's masked contrast.

    Sensitivity exp(-(r/15.3870)^2) - 0.7622 exp(-(r/1.3456)^2), a difference of Gaussians, with Nyquist at side / 30;
    local contrast |G2 / G4 - 1| on 31x31 windows, black beyond the border; masked to C^3 / (C^2 + 1e-4); the smaller
    contrast divided by the larger one, the sources mixed by their squares. The Gaussians are samples of the density,
    not normalized to sum 1, which changes the fourth digit. The value depends on the size of the image.

    Source: Chen, Blum 2009.
    Range: 0 to 1 (identical images; images without contrast); higher is better.
    Profiles: differ in the treatment of color only.
    """
    r = radial_frequency(planes.shape, QCB_DIVISOR)
    sensitivity = np.exp(-((r / DOG_F0) ** 2)) - DOG_A * np.exp(-((r / DOG_F1) ** 2))
    a, b, f = (_masked_contrast(plane, sensitivity) for plane in planes.cached(_stretched_planes))
    lam = share(a * a, b * b)
    kept = []
    for source in (a, b):
        larger = np.maximum(source, f)
        kept.append(np.where(larger > 0, np.minimum(source, f) / np.where(larger > 0, larger, 1), 1))
    return float(np.mean(lam * kept[0] + (1 - lam) * kept[1]))


def _blocks(plane: Plane) -> Plane:
    """Sum over blocks of 16x16 px; blocks at the right and lower border are padded with zeros."""
    h, w = plane.shape
    padded = np.pad(plane, ((0, -h % BLOCK), (0, -w % BLOCK)))
    sums: Plane = padded.reshape(padded.shape[0] // BLOCK, BLOCK, -1, BLOCK).sum(axis=(1, 3))
    return sums


@metric("Qcv", higher_is_better=False, published="vifb")
def qcv(planes: Planes, convention: Convention) -> float:
    """Compute the Chen-Varshney metric: the visible squared error, weighted by the edges of the sources.

    The difference between source and fused image is filtered by 2.6 (0.0192 + 0.144 r) exp(-(0.144 r)^1.1), with
    Nyquist at side / 8. Its mean squares over blocks of 16x16 px are weighted by the block's sum of the source's
    Sobel magnitude to the power 5. Pixels beyond the border are black, which makes the border an edge; the power of 5
    lets few blocks decide.

    Source: Chen, Varshney 2007.
    Range: 0 (identical images) and above, usually some hundreds; lower is better. If both sources are black, all blocks
    have the same weight.
    Profiles: differ in the treatment of color only.
    """
    a, b, f = planes.cached(_stretched_planes)
    r = 0.144 * radial_frequency(planes.shape, QCV_DIVISOR)
    sensitivity = 2.6 * (0.0192 + r) * np.exp(-(r**1.1))
    spectrum_f = rfft2(f)
    errors, weights = [], []
    for source in (a, b):
        weights.append(_blocks(np.hypot(*sobel(source)) ** ALPHA))
        visible = irfft2((rfft2(source) - spectrum_f) * sensitivity, planes.shape)
        errors.append(_blocks(visible * visible) / BLOCK**2)
    total = float(weights[0].sum() + weights[1].sum())
    if total == 0:
        return float(errors[0].mean() + errors[1].mean()) / 2
    return float(np.sum(weights[0] * errors[0]) + np.sum(weights[1] * errors[1])) / total
