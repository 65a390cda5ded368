"""Mutual information of local features: FMI.

A 3x3 window of an edge map is one of 512 patterns, and a pair of windows one of 512^2. The formula is evaluated once
for each pair of patterns that occurs, some thousands, instead of once for each pixel.
"""

from __future__ import annotations

from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tcmoa_calibration.luma import Plane
from tcmoa_calibration.metrics.filters import sobel
from tcmoa_calibration.metrics.planes import Planes
from tcmoa_calibration.metrics.registry import Convention, metric

CELLS: Final = 9
PATTERNS: Final = 1 << CELLS
THRESHOLD: Final = 4.0
"""An edge has more than this multiple of the mean squared gradient."""


def edge_map(plane: Plane) -> NDArray[np.bool_]:
    """Detect Sobel edges [H, W]: automatic threshold, thinned across the gradient, border repeated."""
    gx, gy = sobel(plane, "edge")
    power = np.pad(gx * gx + gy * gy, 1)
    center = power[1:-1, 1:-1]
    across = (np.abs(gx) >= np.abs(gy)) & (power[1:-1, :-2] <= center) & (center > power[1:-1, 2:])
    down = (np.abs(gy) >= np.abs(gx)) & (power[:-2, 1:-1] <= center) & (center > power[2:, 1:-1])
    edges: NDArray[np.bool_] = (center > THRESHOLD * center.mean()) & (across | down)
    return edges


def patterns(edges: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Encode each 3x3 window as a number, row by row from the lowest bit: [H - 2, W - 2]."""
    h, w = edges.shape
    code = np.zeros((h - 2, w - 2), np.intp)
    for cell in range(CELLS):
        row, column = divmod(cell, 3)
        code |= edges[row : h - 2 + row, column : w - 2 + column].astype(np.intp) << cell
    return code


@cache
def _cells() -> Plane:
    """Return the cells of each pattern, [PATTERNS, CELLS] of 0 and 1."""
    return ((np.arange(PATTERNS)[:, None] >> np.arange(CELLS)) & 1).astype(np.float64)


def _entropy(p: Plane) -> Plane:
    """Compute the entropy in bits over all axes but the first."""
    terms = np.where(p > 0, -p * np.log2(np.where(p > 0, p, 1)), 0)
    total: Plane = terms.reshape(len(p), -1).sum(axis=1)
    return total


def pair_information(first: NDArray[np.intp], second: NDArray[np.intp]) -> Plane:
    """Compute 2 I / (H + H) of pairs of patterns [N].

    Equal patterns give 1; a pair with an empty pattern, or without entropy, gives 0. A pattern divided by its sum is
    a distribution over the nine cells in reading order. The joint distribution of two of them is a mixture of
    independence and the Frechet bound with the sign of their correlation r, so that its correlation is r (Haghighat
    2011).
    """
    p, q = _cells()[first], _cells()[second]
    r = np.zeros(len(p))
    pc, qc = p - p.mean(axis=1, keepdims=True), q - q.mean(axis=1, keepdims=True)
    spread = np.sqrt((pc * pc).sum(axis=1) * (qc * qc).sum(axis=1))
    known = spread > 0
    r[known] = (pc * qc).sum(axis=1)[known] / spread[known]
    p = p / np.maximum(p.sum(axis=1, keepdims=True), 1)
    q = q / np.maximum(q.sum(axis=1, keepdims=True), 1)
    cp, cq = np.cumsum(p, axis=1), np.cumsum(q, axis=1)
    independent = cp[:, :, None] * cq[:, None, :]
    upper, lower = (
        np.minimum(cp[:, :, None], cq[:, None, :]),
        np.maximum(cp[:, :, None] + cq[:, None, :] - 1, 0),
    )
    extreme = np.where((r >= 0)[:, None, None], upper, lower)
    bound = (extreme - independent).sum(axis=(1, 2))  # Hoeffding's covariance
    place = np.arange(CELLS)
    deviations = [
        np.sqrt(np.maximum((d * place**2).sum(axis=1) - (d * place).sum(axis=1) ** 2, 0)) for d in (p, q)
    ]
    covariance = r * deviations[0] * deviations[1]
    phi = np.where(
        np.abs(bound) > 1e-12, np.clip(covariance / np.where(np.abs(bound) > 1e-12, bound, 1), 0, 1), 0
    )
    cumulative = phi[:, None, None] * extreme + (1 - phi[:, None, None]) * independent
    both = np.diff(np.diff(np.pad(cumulative, ((0, 0), (1, 0), (1, 0))), axis=1), axis=2)
    hp, hq = _entropy(p), _entropy(q)
    total = hp + hq
    information = np.maximum(total - _entropy(np.maximum(both, 0)), 0)
    shared: Plane = np.where(total > 0, 2 * information / np.where(total > 0, total, 1), 0)
    shared[(first == 0) | (second == 0)] = 0
    shared[first == second] = 1
    return np.minimum(shared, 1)


def mean_information(first: NDArray[np.intp], second: NDArray[np.intp]) -> float:
    """Average `pair_information` over all windows of two images."""
    pairs, counts = np.unique(first.ravel() * PATTERNS + second.ravel(), return_counts=True)
    return float(np.sum(pair_information(pairs // PATTERNS, pairs % PATTERNS) * counts) / counts.sum())


@metric("FMI", min_side=3)
def fmi(planes: Planes, convention: Convention) -> float:
    """Compute the feature mutual information, the mean of FMI(A, F) and FMI(B, F).

    The feature is the edge map (Sobel, automatic threshold, thinned); the metric is the mean of 2 I / (H + H) over all
    3x3 windows. Equal windows count as 1, empty ones too, so that differences between methods are small.

    Source: Haghighat, Aghagolzadeh, Seyedarabi 2011.
    Range: 0 to 1 (identical images and constant ones); higher is better.
    Profiles: differ in the treatment of color only.
    """
    a, b, f = (patterns(edge_map(plane)) for plane in planes.all)
    return (mean_information(a, f) + mean_information(b, f)) / 2
