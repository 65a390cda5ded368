"""Visual information fidelity: VIF and VIFF.

The model: wavelet coefficients of a natural image are Gaussian with a local variance, and perception adds noise of the
variance sigma_n^2. The fidelity is the information that a viewer can get about the source from the fused image, divided
by the information from the source itself. Here in the pixel domain: local means instead of wavelets, four scales, each
half as large as the one before.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from tcmoa_calibration.luma import Plane
from tcmoa_calibration.metrics.filters import blur, gaussian_taps
from tcmoa_calibration.metrics.planes import Planes
from tcmoa_calibration.metrics.registry import Convention, metric

SCALES: Final = 4
NOISE: Final = 2.0
TINY: Final = 1e-10
SATURATED: Final = 255.0
MIN_SIDE: Final = 41
"""Smallest side in pixels that leaves one window at the fourth scale."""

VIFF_NOISE: Final = 0.005 * 255**2
VIFF_WEIGHTS: Final = (1.0, 0.0, 0.15, 1.0)


def window_taps(scale: int) -> Plane:
    """Return the Gaussian window of a scale, 0 to 3: 17, 9, 5 or 3 px, sigma a fifth of it."""
    side = int(2 ** (SCALES - scale) + 1)
    return gaussian_taps(side, side / 5)


def gain_and_noise(var_s: Plane, var_f: Plane, cov: Plane) -> tuple[Plane, Plane, Plane]:
    """Fit F = g S + V at each place: return g, the variance of V and the variance of S; flat places get constants."""
    g = cov / (var_s + TINY)
    noise = var_f - g * cov
    flat = var_s < TINY
    g[flat], noise[flat] = 0, var_f[flat]
    var_s = np.where(flat, 0, var_s)
    lost = var_f < TINY
    g[lost], noise[lost] = 0, 0
    is_reversed = g < 0
    noise[is_reversed] = var_f[is_reversed]
    g[is_reversed] = 0
    return g, np.maximum(noise, TINY), var_s


class SourceInformation(NamedTuple):
    """Information about a source at every place of a scale, in nats.

    Attributes:
        preserved: Information in the fused image.
        available: Information in the source.
        gain: g of the model F = g S + V.
    """

    preserved: Plane
    available: Plane
    gain: Plane


def _scales(
    planes: Planes, sigma: float, saturate: bool = False
) -> list[tuple[SourceInformation, SourceInformation]]:
    """Measure A and B at each scale; `saturate` clips the products of the first scale at 255, as uint8 does."""
    images, scales = list(planes.all), []
    for scale in range(SCALES):
        taps = window_taps(scale)
        if scale:
            images = [blur(image, taps)[::2, ::2] for image in images]
        a, b, f = images
        products = [a * a, b * b, f * f, a * f, b * f]
        if saturate and scale == 0:
            products = [np.minimum(product, SATURATED) for product in products]
        ma, mb, mf = (blur(image, taps) for image in images)
        aa, bb, ff, af, bf = (blur(product, taps) for product in products)
        var_f = np.maximum(ff - mf * mf, 0)
        both = []
        for square, product, mean in ((aa, af, ma), (bb, bf, mb)):
            gain, noise, var = gain_and_noise(np.maximum(square - mean * mean, 0), var_f, product - mean * mf)
            preserved = np.log1p(gain * gain * var / (noise + sigma))
            both.append(SourceInformation(preserved, np.log1p(var / sigma), gain))
        scales.append((both[0], both[1]))
    return scales


@metric("VIF", min_side=MIN_SIDE, published="tang")
def vif(planes: Planes, convention: Convention) -> float:
    """Compute the visual information fidelity in the pixel domain, VIF(A, F) + VIF(B, F).

    Windows of 17, 9, 5 and 3 px with a sigma of a fifth of that; sigma_n^2 = 2.

    Source: Sheikh, Bovik 2006.
    Range: 0 to 2 (identical images); a fused image with more contrast than its sources can exceed 2. Higher is better.
    The term of a constant source is 1 if the fused image is constant too, else 0.
    Profiles: `tang` and `as-published` saturate A^2, F^2 and AF at 255 at the first scale, as Tang's toolbox does with
    uint8 images. `mefb` is VIFF, which MEFB prints under the name VIF.
    """
    if convention == "mefb":
        return planes.cached(_viff)
    scales = _scales(planes, NOISE, saturate=convention == "tang")
    total = 0.0
    for i in range(2):
        available = sum(float(scale[i].available.sum()) for scale in scales)
        if available > 0:
            total += sum(float(scale[i].preserved.sum()) for scale in scales) / available
        else:
            total += float(np.ptp(planes.f) == 0)
    return total


@metric("VIFF", min_side=MIN_SIDE)
def viff(planes: Planes, convention: Convention) -> float:
    """Compute the visual information fidelity for fusion.

    As VIF with sigma_n^2 = 0.005 * 255^2, but each place uses only the source with the smaller gain cov / var (equal
    gains count half), and the fidelities of the four scales are weighted (1, 0, 0.15, 1) / 2.15 from fine to coarse.

    Source: Han, Cai, Cao, Xu 2013; the choice by gain is that of the authors' code, which MEFB uses.
    Range: 0 to 1 (identical images); enhanced contrast can exceed 1. Higher is better. A scale without information in
    the sources counts as 1 if the fused image is constant, else 0.
    Profiles: differ in the treatment of color only.
    """
    return planes.cached(_viff)


def _viff(planes: Planes) -> float:
    total = 0.0
    for weight, (a, b) in zip(VIFF_WEIGHTS, _scales(planes, VIFF_NOISE), strict=True):
        share = (1 - np.sign(a.gain - b.gain)) / 2  # of A
        preserved = float(np.sum(share * a.preserved + (1 - share) * b.preserved))
        available = float(np.sum(share * a.available + (1 - share) * b.available))
        total += weight * (preserved / available if available > 0 else float(np.ptp(planes.f) == 0))
    return total / sum(VIFF_WEIGHTS)
