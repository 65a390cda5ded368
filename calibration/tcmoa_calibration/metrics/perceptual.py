"""What a viewer notices, by the contrast sensitivity of his eye: Qcb and Qcv.

The contrast sensitivity function filters the whole image by FFT, which wraps round its borders. Images are stretched
to 0..255 by their own minimum and maximum first; of a constant image the level stays.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from tcmoa_calibration.metrics.filters import blur, frequencies, half_frequencies, irfft2, rfft2, sobel
from tcmoa_calibration.metrics.frames import Plane, Planes
from tcmoa_calibration.metrics.information import stretched
from tcmoa_calibration.metrics.registry import Convention, metric
from tcmoa_calibration.metrics.structure import share

DOG_F0, DOG_F1, DOG_A = 15.3870, 1.3456, 0.7622
QCB_SHARE: Final = 30
"""The Nyquist frequency is side / 30 cycles per degree: a viewing distance."""
CONTRAST_SIDE: Final = 31
MASK_P, MASK_Q, MASK_Z = 3, 2, 1e-4
DARK: Final = 1e-9
"""Local means below this have no contrast (0 / 0)."""

QCV_SHARE: Final = 8
BLOCK: Final = 16
ALPHA: Final = 5


def radial_frequency(shape: tuple[int, int], divisor: float) -> Plane:
    """[H, W // 2 + 1] for rfft2: the Nyquist frequency of each axis is its length / divisor."""
    down = frequencies(shape[0]) * (shape[0] / divisor)
    across = half_frequencies(shape[1]) * (shape[1] / divisor)
    return np.hypot(down[:, None], across[None, :])


def _density_taps(sigma: float) -> Plane:
    """Values of the normal density itself, which sum to a little less than 1."""
    at = np.arange(CONTRAST_SIDE) - CONTRAST_SIDE // 2
    taps: Plane = np.exp(-(at**2) / (2 * sigma**2)) / (np.sqrt(2 * np.pi) * sigma)
    return taps


def _stretched_planes(planes: Planes) -> tuple[Plane, Plane, Plane]:
    a, b, f = (stretched(plane) for plane in planes.each)
    return a, b, f


def _masked_contrast(plane: Plane, sensitivity: Plane) -> Plane:
    seen = irfft2(rfft2(plane) * sensitivity, (plane.shape[0], plane.shape[1]))
    near, wide = blur(seen, _density_taps(2), "zero"), blur(seen, _density_taps(4), "zero")
    lit = np.abs(wide) > DARK
    contrast = np.where(lit, np.abs(near / np.where(lit, wide, 1) - 1), 0)
    masked: Plane = contrast**MASK_P / (contrast**MASK_Q + MASK_Z)
    return masked


@metric("Qcb", published="vifb")
def qcb(planes: Planes, convention: Convention) -> float:
    """Chen-Blum metric: how much of each source's masked contrast arrives (Chen, Blum 2009).

    Difference-of-Gaussians sensitivity exp(-(r/15.3870)^2) - 0.7622 exp(-(r/1.3456)^2), Nyquist at side / 30; local
    contrast |G2 / G4 - 1| on 31x31 windows, black beyond the border; masked to C^3 / (C^2 + 1e-4); the lesser over the
    greater, sources mixed by the squares. 0 .. 1, 1 for identical images; higher is better; symmetric in x and y.
    Where no contrast is (black images) all of it arrives: 1. The Gaussians are densities sampled, not scaled to sum 1,
    which moves the fourth digit. Resizing an image changes its figure.
    Profiles: by colour only.
    """
    r = radial_frequency(planes.shape, QCB_SHARE)
    sensitivity = np.exp(-((r / DOG_F0) ** 2)) - DOG_A * np.exp(-((r / DOG_F1) ** 2))
    a, b, f = (_masked_contrast(plane, sensitivity) for plane in planes.once(_stretched_planes))
    lam = share(a * a, b * b)
    kept = []
    for source in (a, b):
        greater = np.maximum(source, f)
        kept.append(np.where(greater > 0, np.minimum(source, f) / np.where(greater > 0, greater, 1), 1))
    return float(np.mean(lam * kept[0] + (1 - lam) * kept[1]))


def _blocks(plane: Plane) -> Plane:
    """Sums over blocks of 16x16; those at the right and lower border are filled up with zeros."""
    h, w = plane.shape
    padded = np.pad(plane, ((0, -h % BLOCK), (0, -w % BLOCK)))
    sums: Plane = padded.reshape(padded.shape[0] // BLOCK, BLOCK, -1, BLOCK).sum(axis=(1, 3))
    return sums


@metric("Qcv", higher=False, published="vifb")
def qcv(planes: Planes, convention: Convention) -> float:
    """Chen-Varshney metric: visible squared error, weighted by the sources' edges (Chen, Varshney 2007).

    The difference of source and fused image through 2.6 (0.0192 + 0.144 r) exp(-(0.144 r)^1.1), Nyquist at side / 8;
    mean squares over blocks of 16x16, weighted by the block's sum of the source's Sobel magnitude to the 5th. 0
    (identical images) and up, some hundreds as a rule; LOWER is better; symmetric in x and y. Beyond the border is
    black, which makes an edge of it; the power of 5 lets few blocks decide. Where both sources are black all blocks
    weigh the same.
    Profiles: by colour only.
    """
    a, b, f = planes.once(_stretched_planes)
    r = 0.144 * radial_frequency(planes.shape, QCV_SHARE)
    sensitivity = 2.6 * (0.0192 + r) * np.exp(-(r**1.1))
    spectrum_f = rfft2(f)
    errors, weights = [], []
    for source in (a, b):
        weights.append(_blocks(np.hypot(*sobel(source)) ** ALPHA))
        seen = irfft2((rfft2(source) - spectrum_f) * sensitivity, planes.shape)
        errors.append(_blocks(seen * seen) / BLOCK**2)
    total = float(weights[0].sum() + weights[1].sum())
    if total == 0:
        return float(errors[0].mean() + errors[1].mean()) / 2
    return float(np.sum(weights[0] * errors[0]) + np.sum(weights[1] * errors[1])) / total
