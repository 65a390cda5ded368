"""Visual information that arrives: VIF and VIFF.

A natural image's wavelets are Gaussian with a local variance; seeing adds noise of variance sigma_n^2. What a viewer
could learn from the source through the fused image, over what he could learn from the source, is the fidelity. Here
in the pixel domain: local means instead of wavelets, four scales, each half of the one before.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from tcmoa_calibration.metrics.filters import blur, gaussian_taps
from tcmoa_calibration.metrics.frames import Plane, Planes
from tcmoa_calibration.metrics.registry import Convention, metric

SCALES: Final = 4
NOISE: Final = 2.0
TINY: Final = 1e-10
SATURATED: Final = 255.0
MIN_SIDE: Final = 41
"""The least that leaves a window at the fourth scale."""

VIFF_NOISE: Final = 0.005 * 255**2
VIFF_WEIGHTS: Final = (1.0, 0.0, 0.15, 1.0)


def window_taps(scale: int) -> Plane:
    """Gaussian of 17, 9, 5, 3 pixels for scales 0..3, sigma a fifth of it."""
    side = int(2 ** (SCALES - scale) + 1)
    return gaussian_taps(side, side / 5)


def gain_and_noise(var_s: Plane, var_f: Plane, cov: Plane) -> tuple[Plane, Plane, Plane]:
    """Of the model F = g S + V: g, the variance of V, and S's variance, with flat places settled."""
    g = cov / (var_s + TINY)
    noise = var_f - g * cov
    flat = var_s < TINY
    g[flat], noise[flat] = 0, var_f[flat]
    var_s = np.where(flat, 0, var_s)
    lost = var_f < TINY
    g[lost], noise[lost] = 0, 0
    reversed_ = g < 0
    noise[reversed_] = var_f[reversed_]
    g[reversed_] = 0
    return g, np.maximum(noise, TINY), var_s


class Told(NamedTuple):
    """What F tells of one source at every place of one scale, in nats."""

    told: Plane
    tellable: Plane
    gain: Plane


def _scales(planes: Planes, sigma: float, saturate: bool = False) -> list[tuple[Told, Told]]:
    """Of A and of B, at each scale; `saturate` clips the products of the first one at 255, as uint8 does."""
    images, scales = list(planes.each), []
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
        of_each = []
        for square, product, mean in ((aa, af, ma), (bb, bf, mb)):
            gain, noise, var = gain_and_noise(np.maximum(square - mean * mean, 0), var_f, product - mean * mf)
            of_each.append(Told(np.log1p(gain * gain * var / (noise + sigma)), np.log1p(var / sigma), gain))
        scales.append((of_each[0], of_each[1]))
    return scales


@metric("VIF", min_side=MIN_SIDE, published="tang")
def vif(planes: Planes, convention: Convention) -> float:
    """Visual information fidelity in the pixel domain, VIF(A,F) + VIF(B,F) (Sheikh, Bovik 2006).

    Windows of 17, 9, 5 and 3 pixels, sigma a fifth of it, sigma_n^2 = 2. 0 .. 2, 2 for identical images; a fused image
    of more contrast than its sources can pass 2. Higher is better; symmetric in x and y. A source with nothing to
    tell (constant) counts 1 if the fused image is constant as well, 0 otherwise.
    Profiles: `tang` and as-published saturate A^2, F^2 and AF at 255 at the first scale, as his uint8 images did.
    """
    scales = _scales(planes, NOISE, saturate=convention == "tang")
    total = 0.0
    for i in range(2):
        tellable = sum(float(scale[i].tellable.sum()) for scale in scales)
        if tellable > 0:
            total += sum(float(scale[i].told.sum()) for scale in scales) / tellable
        else:
            total += float(np.ptp(planes.f) == 0)
    return total


@metric("VIFF", min_side=MIN_SIDE)
def viff(planes: Planes, convention: Convention) -> float:
    """Visual information fidelity for fusion (Han, Cai, Cao, Xu 2013).

    As VIF with sigma_n^2 = 0.005 * 255^2, but each place is judged by one source only, the one with the greater gain
    cov / var towards the fused image (equal ones count half), and the four scales' fidelities are weighted
    (1, 0, 0.15, 1) / 2.15 from fine to coarse. 0 .. 1, 1 for identical images; enhanced contrast can pass 1. Higher
    is better; symmetric in x and y. No printed value was at hand to check it by. A scale at
    which the sources tell nothing counts 1 if the fused image is constant, 0 otherwise.
    Profiles: by colour only (`mefb`: mean over R, G, B).
    """
    total = 0.0
    for weight, (of_a, of_b) in zip(VIFF_WEIGHTS, _scales(planes, VIFF_NOISE), strict=True):
        by_a = (1 + np.sign(of_a.gain - of_b.gain)) / 2
        told = float(np.sum(by_a * of_a.told + (1 - by_a) * of_b.told))
        tellable = float(np.sum(by_a * of_a.tellable + (1 - by_a) * of_b.tellable))
        total += weight * (told / tellable if tellable > 0 else float(np.ptp(planes.f) == 0))
    return total / sum(VIFF_WEIGHTS)
