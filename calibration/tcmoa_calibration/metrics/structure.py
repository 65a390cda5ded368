"""Structural similarity and the fusion metrics made of it: SSIM, Qs, Qw, Qe, Qc.

Windows lie wholly inside the image. A local variance is mean(v^2) - mean(v)^2 under the window (population, not
sample); what lies below 1e-8 is rounding, since whole grey levels cannot vary less, and counts as 0.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from tcmoa_calibration.metrics.filters import blur, gaussian_taps, prewitt
from tcmoa_calibration.metrics.frames import Plane, Planes
from tcmoa_calibration.metrics.registry import Convention, metric

SIDE: Final = 11
TAPS: Final = gaussian_taps(SIDE, 1.5)
FLAT: Final = 1e-8
C1, C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2  # 6.5025, 58.5225


class Moments(NamedTuple):
    """Local means, variances and covariances of a, b and f under one window."""

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
    """Under the square window of these taps, [H - len(taps) + 1, W - len(taps) + 1] each."""
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
    """Under the Gaussian of 11x11, sigma 1.5."""
    return moments(*planes.each, TAPS)


def similarity_maps(m: Moments, c1: float = C1, c2: float = C2) -> tuple[Plane, Plane]:
    """SSIM of A and F, of B and F, at every place of the window."""
    maps = []
    for mean, var, cov in ((m.mean_a, m.var_a, m.cov_af), (m.mean_b, m.var_b, m.cov_bf)):
        luminance = (2 * mean * m.mean_f + c1) / (mean * mean + m.mean_f * m.mean_f + c1)
        maps.append(luminance * (2 * cov + c2) / (var + m.var_f + c2))
    return maps[0], maps[1]


def _similarities(planes: Planes) -> tuple[Plane, Plane]:
    return similarity_maps(planes.once(gaussian_moments))


@metric("SSIM", min_side=SIDE)
def ssim(planes: Planes, convention: Convention) -> float:
    """Structural similarity, mean of SSIM(A,F) and SSIM(B,F) (Wang 2004, Eq. 13).

    Gaussian window 11x11 of sigma 1.5, C1 = (0.01 * 255)^2, C2 = (0.03 * 255)^2, population covariance. -1 .. 1, 1 for
    identical images; higher is better; symmetric in x and y.
    Profiles: `vifb` and `mefb` print the SUM of the two (-2 .. 2); the paper prints the mean.
    """
    with_a, with_b = planes.once(_similarities)
    mean = float(with_a.mean() + with_b.mean()) / 2
    return 2 * mean if convention in ("vifb", "mefb") else mean


def share(of_a: Plane, of_b: Plane) -> Plane:
    """a / (a + b) of values not below 0; 1/2 where both are 0."""
    total = of_a + of_b
    return np.where(total > 0, of_a / np.where(total > 0, total, 1), 0.5)


def _mixed_similarity(planes: Planes) -> Plane:
    """SSIM with A and with B, mixed at each place by their local variances."""
    m = planes.once(gaussian_moments)
    with_a, with_b = planes.once(_similarities)
    lam = share(m.var_a, m.var_b)
    return lam * with_a + (1 - lam) * with_b


def _weighted_similarity(planes: Planes) -> float:
    """Mean of the mixed similarity weighted by the greater variance; the plain mean where all variances are 0."""
    m = planes.once(gaussian_moments)
    mixed, saliency = planes.once(_mixed_similarity), np.maximum(m.var_a, m.var_b)
    total = float(saliency.sum())
    return float(np.sum(mixed * saliency)) / total if total > 0 else float(mixed.mean())


def _edges(planes: Planes) -> Planes:
    """The planes' Prewitt magnitudes, black beyond the border."""
    return Planes(*(np.hypot(*prewitt(plane)) for plane in planes.each))


@metric("Qs", min_side=SIDE)
def qs(planes: Planes, convention: Convention) -> float:
    """Fusion quality index Q: SSIM with each source mixed by local variance, then averaged (Piella 2003).

    On SSIM's window and constants. -1 .. 1, 1 for identical images; higher is better; symmetric in x and y. Where
    neither source varies both count half.
    Profiles: by colour only.
    """
    return float(planes.once(_mixed_similarity).mean())


@metric("Qw", min_side=SIDE, published="mefb")
def qw(planes: Planes, convention: Convention) -> float:
    """Weighted fusion quality index Q_W: Qs with each place weighted by max(var A, var B) (Piella 2003).

    -1 .. 1, 1 for identical images; higher is better; symmetric in x and y. If no place varies all weigh the same.
    Profiles: `mefb` and as-published compute it on Prewitt magnitudes instead of the images.
    """
    return _weighted_similarity(planes.once(_edges) if convention == "mefb" else planes)


@metric("Qe", min_side=SIDE)
def qe(planes: Planes, convention: Convention) -> float:
    """Edge-dependent fusion quality index Q_E = Q_W(images) * Q_W(edges) (Piella 2003, alpha 1).

    Edges are Prewitt magnitudes. -1 .. 1, 1 for identical images; higher is better; symmetric in x and y.
    Profiles: by colour only.
    """
    return _weighted_similarity(planes) * _weighted_similarity(planes.once(_edges))


QC_SIDE: Final = 7
QC_TAPS: Final = gaussian_taps(QC_SIDE, 1.5)
QC_CONSTANT: Final = 2e-16


@metric("Qc", min_side=QC_SIDE)
def qc(planes: Planes, convention: Convention) -> float:
    """Cvejic's metric Q_C: universal quality with each source, mixed by covariance (Cvejic 2005).

    Window 7x7, Gaussian of sigma 1.5; both constants 2e-16, so that it is Wang's universal index; the share of A is
    cov(A,F) / (cov(A,F) + cov(B,F)) clipped to 0..1. -1 .. 1, 1 for identical images; higher is better; symmetric in
    x and y. Where both covariances are 0 both sources count half. Flat against flat is 1 where the levels agree; the
    variance of a flat window is exactly 0 here, where a convolution by FFT would compare its own rounding.
    Profiles: by colour only.
    """
    m = moments(*planes.each, QC_TAPS)
    with_a, with_b = similarity_maps(m, QC_CONSTANT, QC_CONSTANT)
    total = m.cov_af + m.cov_bf
    known = total != 0
    sim = np.where(known, np.clip(m.cov_af / np.where(known, total, 1), 0, 1), 0.5)
    return float(np.mean(sim * with_a + (1 - sim) * with_b))
