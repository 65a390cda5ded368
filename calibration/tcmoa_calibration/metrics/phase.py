"""Preservation of features by phase congruency: Qp.

Where the Fourier components of an image agree in phase, it has a feature, an edge or a line, whatever its contrast
(Kovesi 1999). Congruency is energy divided by amplitude of log-Gabor filters, weighted by the number of scales that
respond, minus the noise estimated at the finest scale.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tcmoa_calibration.luma import Plane
from tcmoa_calibration.metrics.filters import blur, fft2, frequencies, ifft2
from tcmoa_calibration.metrics.planes import Planes
from tcmoa_calibration.metrics.registry import Convention, metric
from tcmoa_calibration.metrics.structure import SIDE, TAPS

SCALES: Final = 4
ORIENTATIONS: Final = 6
MIN_WAVELENGTH: Final = 3.0
MULT: Final = 2.1
SIGMA_ON_F: Final = 0.55
D_THETA_ON_SIGMA: Final = 1.2
NOISE_K: Final = 2.0
NOISE_DIVISOR: Final = 1.7
"""Kovesi's empirical scaling of the noise threshold."""
CUT_OFF: Final = 0.5
GAIN: Final = 10.0
TINY: Final = 1e-4
"""In gray levels: amplitudes far below it count as none."""

FEATURE: Final = 0.1
CONSTANT: Final = 1e-4


TOOLBOX_MIXED_WEIGHT: Final = 0.25
"""MEFB's code divides the mixed moment by the number of orientations, a quarter of Kovesi's value."""


class Features(NamedTuple):
    """Features of a plane, [H, W] each.

    Attributes:
        congruency: Phase congruency over all orientations, 0 to 1.
        max_moment: Moment across the feature: edges and corners.
        min_moment: Moment along the feature: corners.
    """

    congruency: Plane
    max_moment: Plane
    min_moment: Plane


@lru_cache(maxsize=1)
def _filters(shape: tuple[int, int]) -> tuple[list[Plane], list[Plane]]:
    """Return the radial parts by scale and the angular parts by orientation of log-Gabor filters."""
    down, across = frequencies(shape[0])[:, None] / 2, frequencies(shape[1])[None, :] / 2
    radius = np.hypot(down, across)
    radius[0, 0] = 1
    low_pass = 1 / (1 + (radius / 0.45) ** 30)
    radial = []
    for scale in range(SCALES):
        center = 1 / (MIN_WAVELENGTH * MULT**scale)
        band = np.exp(-(np.log(radius / center) ** 2) / (2 * math.log(SIGMA_ON_F) ** 2)) * low_pass
        band[0, 0] = 0
        radial.append(band)
    theta = np.arctan2(-down, across)
    sigma = math.pi / ORIENTATIONS / D_THETA_ON_SIGMA
    angular = []
    for orientation in range(ORIENTATIONS):
        angle = orientation * math.pi / ORIENTATIONS
        away = np.abs((theta - angle + math.pi) % (2 * math.pi) - math.pi)
        angular.append(np.exp(-(away**2) / (2 * sigma**2)))
    return radial, angular


@lru_cache(maxsize=4)
def _noise_shares(shape: tuple[int, int]) -> list[float]:
    """Return, by orientation, the power of white noise after all filters over that after the finest one (Parseval)."""
    radial, angular = _filters(shape)
    finest, whole = radial[0] ** 2, (radial[0] + radial[1] + radial[2] + radial[3]) ** 2
    return [float(np.sum(whole * spread**2) / np.sum(finest * spread**2)) for spread in angular]


def phase_features(plane: Plane, mixed_weight: float = 1.0, root_offset: float = 0.0) -> Features:
    """Compute the phase congruency of a plane, and its moments over orientation.

    Args:
        plane: The plane, [H, W].
        mixed_weight: Factor of the mixed moment; 1 is Kovesi's formula.
        root_offset: Added to the difference between the two moments.
    """
    shape = (plane.shape[0], plane.shape[1])
    radial, angular = _filters(shape)
    spectrum = fft2(plane)
    energy_total, amplitude_total = np.zeros(shape), np.zeros(shape)
    xx, yy, xy = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    for orientation, (spread, noise_share) in enumerate(zip(angular, _noise_shares(shape), strict=True)):
        oriented = spectrum * spread
        responses = [ifft2(oriented * band) for band in radial]
        energy, amplitude, weight = _energy(responses, noise_share)
        weighted = weight * energy
        energy_total += weighted
        amplitude_total += amplitude
        along = weighted / (amplitude + TINY)
        angle = orientation * math.pi / ORIENTATIONS
        along *= along
        xx += along * math.cos(angle) ** 2
        yy += along * math.sin(angle) ** 2
        xy += along * (math.cos(angle) * math.sin(angle))
    xx, yy, xy = xx / (ORIENTATIONS / 2), yy / (ORIENTATIONS / 2), mixed_weight * 4 * xy / ORIENTATIONS
    spread_of_moments = np.sqrt(xy * xy + (xx - yy) ** 2) + root_offset
    return Features(
        energy_total / (amplitude_total + TINY),
        (xx + yy + spread_of_moments) / 2,
        (xx + yy - spread_of_moments) / 2,
    )


def _energy(responses: list[NDArray[np.complex128]], noise_share: float) -> tuple[Plane, Plane, Plane]:
    """Return local energy above noise, sum of amplitudes and weight of the spread over scales, for one orientation."""
    amplitudes = [np.sqrt(r.real * r.real + r.imag * r.imag) for r in responses]
    amplitude = amplitudes[0] + amplitudes[1] + amplitudes[2] + amplitudes[3]
    largest = np.maximum(np.maximum(amplitudes[0], amplitudes[1]), np.maximum(amplitudes[2], amplitudes[3]))
    summed = responses[0] + responses[1] + responses[2] + responses[3]
    length = np.sqrt(summed.real**2 + summed.imag**2) + TINY
    even, odd = summed.real / length, summed.imag / length  # mean phase
    energy = summed.real * even + summed.imag * odd
    for r in responses:
        energy -= np.abs(r.real * odd - r.imag * even)
    # The median amplitude at the finest scale estimates the noise (Rayleigh distribution).
    power = float(np.median(amplitudes[0])) ** 2 / math.log(2)
    tau = math.sqrt(power * noise_share / 2)
    threshold = tau * (math.sqrt(math.pi / 2) + NOISE_K * math.sqrt(2 - math.pi / 2)) / NOISE_DIVISOR
    width = amplitude / (largest + TINY) / SCALES
    return np.maximum(energy - threshold, 0), amplitude, 1 / (1 + np.exp((CUT_OFF - width) * GAIN))


def _toolbox_features(plane: Plane) -> Features:
    return phase_features(plane, TOOLBOX_MIXED_WEIGHT, TINY)


def _features(planes: Planes) -> tuple[Features, Features, Features]:
    return planes.map(phase_features)


@metric("Qp", min_side=SIDE)
def qp(planes: Planes, convention: Convention) -> float:
    """Compute the phase congruency metric P_blind: correlations of congruency, maximum and minimum moment.

    Each of the three maps of F is correlated with that of A, of B and with the larger of both, under a Gaussian
    window of 11x11 px, sigma 1.5 px: (cov + 1e-4) / (sd sd + 1e-4). The best of the three counts, averaged where any
    of the images has a feature (congruency above 0.1); the metric is the product of the three means. Contrast hardly
    matters: F = A / 2 has nearly the full value.

    Source: Zhao, Laganiere, Liu 2007; Kovesi 1999 for the features.
    Range: -1 to 1 (identical images; a fused image without features has no correlation and counts 1 too); higher is
    better.
    Profiles: `mefb` computes it as MEFB's toolbox does, see `_toolbox_qp`: identical images give less than 1, because
    the maps of the sources are masked and the map of F is not. Its published values of JPEG pairs fit fused
    images stored as JPEG of quality 75, which lowers Qp by 0.1 to 0.3: compare after the same compression.
    """
    if convention == "mefb":
        return _toolbox_qp(*planes.map(_toolbox_features))
    a, b, f = planes.cached(_features)
    margin = SIDE // 2
    core = (slice(margin, planes.shape[0] - margin), slice(margin, planes.shape[1] - margin))
    mask = (np.maximum(np.maximum(a.congruency, b.congruency), f.congruency) > FEATURE)[core]
    if not mask.any():
        return 1.0
    product = 1.0
    for map_a, map_b, map_f in zip(a, b, f, strict=True):
        mean_f = blur(map_f, TAPS)
        sd_f = _deviation(map_f, mean_f)
        best = np.full(mask.shape, -1.0)
        for source in (map_a, map_b, np.maximum(map_a, map_b)):
            mean = blur(source, TAPS)
            covariance = blur(source * map_f, TAPS) - mean * mean_f
            correlation = (covariance + CONSTANT) / (_deviation(source, mean) * sd_f + CONSTANT)
            best = np.maximum(best, correlation)
        product *= float(best[mask].mean())
    return product


def _deviation(plane: Plane, mean: Plane) -> Plane:
    deviation: Plane = np.sqrt(np.maximum(blur(plane * plane, TAPS) - mean * mean, 0))
    return deviation


def _toolbox_qp(a: Features, b: Features, f: Features) -> float:
    """Compute Qp as MEFB's code does.

    - The third source is made of A and B: at each place, all three maps come from the one with the larger congruency.
    - Each source has its own mask, where its congruency exceeds 0.1. Its maps are 0 elsewhere before they are
      filtered; those of F are not masked.
    - Filtering extends the maps with zeros, so that the border counts.
    - The correlation is (cov + 1e-4) / (sqrt(|var var|) + 1e-4) in the source's mask, 0 elsewhere. The best of the
      three is summed and divided by the number of places in the third mask.

    The code's sampling of frequencies for odd sides is not reproduced; it changes Qp by less than 2e-4.
    """
    from_a = a.congruency > b.congruency
    either = Features(*(np.where(from_a, of_a, of_b) for of_a, of_b in zip(a, b, strict=True)))
    masks = [source.congruency > FEATURE for source in (a, b, either)]
    count = int(np.count_nonzero(masks[2]))
    if not count:
        return 1.0
    product = 1.0
    for index, map_f in enumerate(f):
        mean_f = blur(map_f, TAPS, "zero")
        var_f = blur(map_f * map_f, TAPS, "zero") - mean_f * mean_f
        best = np.full(map_f.shape, -np.inf)
        for source, mask in zip((a, b, either), masks, strict=True):
            masked = source[index] * mask
            mean = blur(masked, TAPS, "zero")
            var = blur(masked * masked, TAPS, "zero") - mean * mean
            covariance = blur(masked * map_f, TAPS, "zero") - mean * mean_f
            correlation = (covariance + CONSTANT) / (np.sqrt(np.abs(var * var_f)) + CONSTANT)
            best = np.maximum(best, correlation * mask)
        product *= float(best.sum()) / count
    return product
