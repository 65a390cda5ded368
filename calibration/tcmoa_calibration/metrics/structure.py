"""Structural similarity and the fusion metrics derived from it: SSIM, Qs, Qw, Qe, Qc.

Windows lie inside the image. A local variance is mean(v^2) - mean(v)^2 under the window (population variance). Values
below 1e-8 are rounding errors, since whole gray levels cannot vary less, and count as 0.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from tcmoa_calibration.luma import Plane
from tcmoa_calibration.metrics.filters import blur, gaussian_taps, prewitt
from tcmoa_calibration.metrics.planes import Planes
from tcmoa_calibration.metrics.registry import Convention, metric

SIDE: Final = 11
TAPS: Final = gaussian_taps(SIDE, 1.5)
FLAT: Final = 1e-8
C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2  # 6.5025, 58.5225


class Moments(NamedTuple):
    """Local means, variances and covariances of a, b and f under a window."""

    mean_a: Plane
    mean_b: Plane
    mean_f: Plane
    var_a: Plane
    var_b: Plane
    var_f: Plane
    cov_af: Plane
    cov_bf: Plane
    cov_ab: Plane


def moments(a: Plane, b: Plane, f: Plane, taps: Plane) -> Moments:
    """Compute the moments under the square window of `taps`, [H - len(taps) + 1, W - len(taps) + 1] each."""
    ma, mb, mf = (blur(plane, taps) for plane in (a, b, f))
    va, vb, vf = (blur(p * p, taps) - m * m for p, m in ((a, ma), (b, mb), (f, mf)))
    for variance in (va, vb, vf):
        variance[variance < FLAT] = 0
    return Moments(
        *(ma, mb, mf, va, vb, vf),
        _covariance(a, f, taps, ma, mf, va, vf),
        _covariance(b, f, taps, mb, mf, vb, vf),
        _covariance(a, b, taps, ma, mb, va, vb),
    )


def _covariance(
    p: Plane, q: Plane, taps: Plane, mean_p: Plane, mean_q: Plane, var_p: Plane, var_q: Plane
) -> Plane:
    covariance = blur(p * q, taps) - mean_p * mean_q
    covariance[(var_p == 0) | (var_q == 0)] = 0
    return covariance


def gaussian_moments(planes: Planes) -> Moments:
    """Compute the moments under a Gaussian window of 11x11 px, sigma 1.5 px."""
    return moments(*planes.all, TAPS)


def similarity_maps(m: Moments, c1: float = C1, c2: float = C2) -> tuple[Plane, Plane]:
    """Compute SSIM of A and F, and of B and F, at every place of the window."""
    maps = []
    for mean, var, cov in ((m.mean_a, m.var_a, m.cov_af), (m.mean_b, m.var_b, m.cov_bf)):
        luminance = (2 * mean * m.mean_f + c1) / (mean * mean + m.mean_f * m.mean_f + c1)
        maps.append(luminance * (2 * cov + c2) / (var + m.var_f + c2))
    return maps[0], maps[1]


def _similarities(planes: Planes) -> tuple[Plane, Plane]:
    return similarity_maps(planes.cached(gaussian_moments))


@metric("SSIM", min_side=SIDE)
def ssim(planes: Planes, convention: Convention) -> float:
    """Compute the structural similarity, the mean of SSIM(A, F) and SSIM(B, F).

    Gaussian window of 11x11 px, sigma 1.5 px; C1 = (0.01 * 255)^2, C2 = (0.03 * 255)^2; population covariance.

    Source: Wang, Bovik, Sheikh, Simoncelli 2004, Eq. 13.
    Range: -1 to 1 (identical images); higher is better.
    Profiles: `vifb` and `mefb` print the sum of both (-2 to 2); `as-published` is the mean, as TC-MoA's paper prints
    it.
    """
    with_a, with_b = planes.cached(_similarities)
    mean = float(with_a.mean() + with_b.mean()) / 2
    return 2 * mean if convention in ("vifb", "mefb") else mean


def share(a: Plane, b: Plane) -> Plane:
    """Compute a / (a + b) of values >= 0; 1/2 where both are 0."""
    total = a + b
    return np.where(total > 0, a / np.where(total > 0, total, 1), 0.5)


def _mixed_similarity(planes: Planes) -> Plane:
    """Mix SSIM with A and with B at each place by the local variances of A and B."""
    m = planes.cached(gaussian_moments)
    with_a, with_b = planes.cached(_similarities)
    lam = share(m.var_a, m.var_b)
    return lam * with_a + (1 - lam) * with_b


def _weighted_similarity(planes: Planes) -> float:
    """Average the mixed similarity, weighted by the larger variance; unweighted if all variances are 0."""
    m = planes.cached(gaussian_moments)
    mixed, saliency = planes.cached(_mixed_similarity), np.maximum(m.var_a, m.var_b)
    total = float(saliency.sum())
    return float(np.sum(mixed * saliency)) / total if total > 0 else float(mixed.mean())


def _edges(planes: Planes) -> Planes:
    """Return the Prewitt magnitudes of the planes, black beyond the border."""
    return Planes(*(np.hypot(*prewitt(plane)) for plane in planes.all))


@metric("Qs", min_side=SIDE)
def qs(planes: Planes, convention: Convention) -> float:
    """Compute the fusion quality index Q: SSIM with each source, mixed by local variance and averaged.

    Window and constants are those of SSIM. Where neither source varies, both count half.

    Source: Piella, Heijmans 2003.
    Range: -1 to 1 (identical images); higher is better.
    Profiles: differ in the treatment of color only.
    """
    return float(planes.cached(_mixed_similarity).mean())


@metric("Qw", min_side=SIDE, published="mefb")
def qw(planes: Planes, convention: Convention) -> float:
    """Compute the weighted fusion quality index Q_W: Qs with each place weighted by max(var A, var B).

    If no place varies, all have the same weight.

    Source: Piella, Heijmans 2003.
    Range: -1 to 1 (identical images); higher is better.
    Profiles: `mefb` and `as-published` compute it on Prewitt magnitudes instead of the images.
    """
    return _weighted_similarity(planes.cached(_edges) if convention == "mefb" else planes)


@metric("Qe", min_side=SIDE)
def qe(planes: Planes, convention: Convention) -> float:
    """Compute the edge-dependent fusion quality index Q_E = Q_W(images) * Q_W(edges), with alpha = 1.

    Edges are Prewitt magnitudes.

    Source: Piella, Heijmans 2003.
    Range: -1 to 1 (identical images); higher is better.
    Profiles: differ in the treatment of color only.
    """
    return _weighted_similarity(planes) * _weighted_similarity(planes.cached(_edges))


QC_SIDE: Final = 7
QC_TAPS: Final = gaussian_taps(QC_SIDE, 1.5)
QC_CONSTANT: Final = 2e-16


@metric("Qc", min_side=QC_SIDE)
def qc(planes: Planes, convention: Convention) -> float:
    """Compute the metric Q_C of Cvejic: universal quality index with each source, mixed by covariance.

    Gaussian window of 7x7 px, sigma 1.5 px; both constants 2e-16, which makes it Wang's universal quality index. The
    share of A is cov(A, F) / (cov(A, F) + cov(B, F)), clipped to 0..1. Where both covariances are 0, both sources
    count half. The variance of a flat window is exactly 0 here; a convolution by FFT would compare its own rounding
    errors.

    Source: Cvejic, Loza, Bull, Canagarajah 2005.
    Range: -1 to 1 (identical images); higher is better. Two flat windows of the same level give 1.
    Profiles: differ in the treatment of color only.
    """
    m = moments(*planes.all, QC_TAPS)
    with_a, with_b = similarity_maps(m, QC_CONSTANT, QC_CONSTANT)
    total = m.cov_af + m.cov_bf
    known = total != 0
    share_a = np.where(known, np.clip(m.cov_af / np.where(known, total, 1), 0, 1), 0.5)
    return float(np.mean(share_a * with_a + (1 - share_a) * with_b))
