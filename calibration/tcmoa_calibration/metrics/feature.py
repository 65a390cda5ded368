"""Mutual information of local features: FMI.

A 3x3 window of an edge map is one of 512 patterns, a pair of windows one of 512^2: the formula is evaluated once for
each pair that occurs, some thousands, not for each pixel.
"""

from __future__ import annotations

from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tcmoa_calibration.metrics.filters import sobel
from tcmoa_calibration.metrics.frames import Plane, Planes
from tcmoa_calibration.metrics.registry import Convention, metric

CELLS: Final = 9
PATTERNS: Final = 1 << CELLS
THRESHOLD: Final = 4.0
"""An edge has at least this many times the mean squared gradient."""


def edge_map(plane: Plane) -> NDArray[np.bool_]:
    """Sobel edges by an automatic threshold, thinned to the crest across the gradient; the border is repeated."""
    gx, gy = sobel(plane, "edge")
    power = np.pad(gx * gx + gy * gy, 1)
    centre = power[1:-1, 1:-1]
    across = (np.abs(gx) >= np.abs(gy)) & (power[1:-1, :-2] <= centre) & (centre > power[1:-1, 2:])
    down = (np.abs(gy) >= np.abs(gx)) & (power[:-2, 1:-1] <= centre) & (centre > power[2:, 1:-1])
    edges: NDArray[np.bool_] = (centre > THRESHOLD * centre.mean()) & (across | down)
    return edges


def patterns(edges: NDArray[np.bool_]) -> NDArray[np.intp]:
    """[H - 2, W - 2]: each 3x3 window as a number, its cells row by row from the lowest bit on."""
    h, w = edges.shape
    code = np.zeros((h - 2, w - 2), np.intp)
    for cell in range(CELLS):
        row, column = divmod(cell, 3)
        code |= edges[row : h - 2 + row, column : w - 2 + column].astype(np.intp) << cell
    return code


@cache
def _cells() -> Plane:
    """[PATTERNS, CELLS] of 0 and 1."""
    return ((np.arange(PATTERNS)[:, None] >> np.arange(CELLS)) & 1).astype(np.float64)


def _entropy(p: Plane) -> Plane:
    """In bits, over all axes but the first."""
    terms = np.where(p > 0, -p * np.log2(np.where(p > 0, p, 1)), 0)
    total: Plane = terms.reshape(len(p), -1).sum(axis=1)
    return total


def pair_information(first: NDArray[np.intp], second: NDArray[np.intp]) -> Plane:
    """2 I / (H + H) of pairs of patterns [N]; 1 for equal ones, 0 where one is empty or neither has entropy.

    A pattern over its sum is a distribution over the nine cells in reading order. What joins two of them lies between
    the Frechet bounds: the one nearest in sign to their correlation r, mixed with independence so that the joint
    distribution has the correlation r (Haghighat 2011).
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
    apart = cp[:, :, None] * cq[:, None, :]
    upper, lower = (
        np.minimum(cp[:, :, None], cq[:, None, :]),
        np.maximum(cp[:, :, None] + cq[:, None, :] - 1, 0),
    )
    extreme = np.where((r >= 0)[:, None, None], upper, lower)
    bound = (extreme - apart).sum(axis=(1, 2))  # Hoeffding's covariance
    place = np.arange(CELLS)
    deviations = [
        np.sqrt(np.maximum((d * place**2).sum(axis=1) - (d * place).sum(axis=1) ** 2, 0)) for d in (p, q)
    ]
    wanted = r * deviations[0] * deviations[1]
    phi = np.where(
        np.abs(bound) > 1e-12, np.clip(wanted / np.where(np.abs(bound) > 1e-12, bound, 1), 0, 1), 0
    )
    cumulative = phi[:, None, None] * extreme + (1 - phi[:, None, None]) * apart
    both = np.diff(np.diff(np.pad(cumulative, ((0, 0), (1, 0), (1, 0))), axis=1), axis=2)
    hp, hq = _entropy(p), _entropy(q)
    total = hp + hq
    information = np.maximum(total - _entropy(np.maximum(both, 0)), 0)
    told: Plane = np.where(total > 0, 2 * information / np.where(total > 0, total, 1), 0)
    told[(first == 0) | (second == 0)] = 0
    told[first == second] = 1
    return np.minimum(told, 1)


def mean_information(first: NDArray[np.intp], second: NDArray[np.intp]) -> float:
    """Mean of `pair_information` over all windows of two images."""
    pairs, counts = np.unique(first.ravel() * PATTERNS + second.ravel(), return_counts=True)
    return float(np.sum(pair_information(pairs // PATTERNS, pairs % PATTERNS) * counts) / counts.sum())


@metric("FMI", min_side=3)
def fmi(planes: Planes, convention: Convention) -> float:
    """Feature mutual information, mean of FMI(A,F) and FMI(B,F) (Haghighat, Aghagolzadeh, Seyedarabi 2011).

    The feature is the edge map (Sobel, automatic threshold, thinned); 2 I / (H + H) of each 3x3 window, averaged. 0 ..
    1, 1 for identical images; higher is better; symmetric in x and y. Windows that are equal count 1, empty ones among
    them, so that flat images start near 1 and constant ones reach it. Differences between methods are small.
    Profiles: by colour only.
    """
    a, b, f = (patterns(edge_map(plane)) for plane in planes.each)
    return (mean_information(a, f) + mean_information(b, f)) / 2
