"""Preservation of edges: Qabf and Qg.

Both compare the strength and orientation of the Sobel gradients of each source with those of the fused image. The
orientation of an edge has no direction: an edge with reversed contrast is preserved.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np

from tcmoa_calibration.luma import Plane
from tcmoa_calibration.metrics.filters import sobel
from tcmoa_calibration.metrics.planes import Planes
from tcmoa_calibration.metrics.registry import Convention, metric


class Gradient(NamedTuple):
    """Gradients of a plane, [H, W] each.

    Attributes:
        strength: sqrt(gx^2 + gy^2).
        angle: atan(gy / gx), from -pi/2 to pi/2; pi/2 where gx is 0.
    """

    strength: Plane
    angle: Plane


class Sigmoid(NamedTuple):
    """The function gamma / (1 + exp(kappa (v - sigma)))."""

    gamma: float
    kappa: float
    sigma: float

    def __call__(self, value: Plane) -> Plane:
        """Evaluate at each pixel."""
        return self.gamma / (1 + np.exp(self.kappa * (value - self.sigma)))


SMOOTH: Final = (1.0, 2.0, 1.0)
QABF_STRENGTH: Final = Sigmoid(0.9994, -15, 0.5)
QABF_ANGLE: Final = Sigmoid(0.9879, -22, 0.8)
QG_STRENGTH: Final = Sigmoid(1, -10, 0.5)
QG_ANGLE: Final = Sigmoid(1, -20, 0.75)
QG_EPSILON: Final = 1e-5


def gradient(plane: Plane) -> Gradient:
    """Compute Sobel gradients; black beyond the border as in MATLAB's conv2, which adds edges along the border."""
    gx, gy = sobel(plane)
    return _polar(-gx, gy)  # signs of MATLAB's conv2, which flips the masks


def _polar(gx: Plane, gy: Plane) -> Gradient:
    flat = gx == 0
    angle = np.arctan(gy / np.where(flat, 1, gx))
    angle[flat] = math.pi / 2
    return Gradient(np.sqrt(gx * gx + gy * gy), angle)


def _gradient_of_unit_image(plane: Plane) -> Gradient:
    """Compute `gradient` of plane / 255 with the rounding of MATLAB's conv2: column by column, from the lower right.

    In flat areas the nine products do not cancel exactly. Their order decides whether gx is 0 or 1e-17, which decides
    whether the angle is pi/2 or -pi/2, and with it the fourth digit of Tang's Qabf.
    """
    h, w = plane.shape
    padded = np.pad(plane / 255, 1)
    gx, gy = np.zeros((h, w)), np.zeros((h, w))
    for column in (2, 1, 0):
        for row in (2, 1, 0):
            shifted = padded[row : row + h, column : column + w]
            if column != 1:
                gx += SMOOTH[row] * (1 - column) * shifted
            if row != 1:
                gy += SMOOTH[column] * (row - 1) * shifted
    return _polar(gx, gy)


def _gradients(planes: Planes) -> tuple[Gradient, Gradient, Gradient]:
    return planes.map(gradient)


def _gradients_of_unit_images(planes: Planes) -> tuple[Gradient, Gradient, Gradient]:
    return planes.map(_gradient_of_unit_image)


def _strength_kept(source: Plane, fused: Plane) -> Plane:
    """Divide the smaller strength by the larger one, 0 to 1; 1 where both are 0."""
    larger = np.maximum(source, fused)
    kept: Plane = np.where(larger > 0, np.minimum(source, fused) / np.where(larger > 0, larger, 1), 1.0)
    return kept


@metric("Qabf", min_side=3, published="vifb")
def qabf(planes: Planes, convention: Convention) -> float:
    """Compute the edge preservation Q^AB/F, each pixel weighted by the gradient of its source (L = 1).

    The preserved strength (sigmoid 0.9994, -15, 0.5) is multiplied by the preserved orientation
    1 - |angle difference| / (pi/2) (sigmoid 0.9879, -22, 0.8). Angles are atan(gy / gx) without wrapping: two nearly
    parallel edges on both sides of the vertical count as opposite (with wrapping the metric would be 0.05 to 0.07
    higher). Pixels beyond the border are black.

    Source: Xydeas, Petrovic 2000.
    Range: 0 to 0.9748 (identical images; the sigmoids do not reach 1); higher is better. If both sources are black,
    there are no edges to preserve: the value is that of identical images if the fused image has no edges either, else
    0.
    Profiles: all but `correct` replace the ratio of equal strengths by the strength itself instead of 1, which
    changes the sixth digit (flat areas have no weight). `tang` takes images in 0..1, in which strengths are below 1
    and rounding decides the angles of flat areas: up to 1.2e-3 lower.
    """
    *sources, gf = planes.cached(_gradients_of_unit_images if convention == "tang" else _gradients)
    total, weight = 0.0, 0.0
    for g in sources:
        kept = _strength_kept(g.strength, gf.strength)
        if convention != "correct":
            kept = np.where(g.strength == gf.strength, gf.strength, kept)
        orientation = 1 - np.abs(g.angle - gf.angle) * (2 / math.pi)
        total += float(np.sum(QABF_STRENGTH(kept) * QABF_ANGLE(orientation) * g.strength))
        weight += float(np.sum(g.strength))
    if weight == 0:
        one = np.ones(1)
        return 0.0 if gf.strength.any() else float((QABF_STRENGTH(one) * QABF_ANGLE(one))[0])
    return total / weight


@metric("Qg", min_side=3)
def qg(planes: Planes, convention: Convention) -> float:
    """Compute the gradient preservation Q_G, the mean of per-pixel ratios.

    (Q_AF gA + Q_BF gB) / (gA + gB) at each pixel, then the mean, unlike the ratio of sums of Qabf. The sigmoids are
    (1, -10, 0.5) of the strength and (1, -20, 0.75) of the orientation ||angle difference| - pi/2| * 2/pi, which wraps.

    Source: Xydeas, Petrovic 2000, in the form of Liu, Blasch, Xue, Zhao, Laganiere, Wu 2012.
    Range: 0 to 0.9867 (identical images); higher is better. Pixels without a gradient in both sources have no ratio and
    are left out of the mean; if there are no others, the value is defined as in Qabf.
    Profiles: all but `correct` count those pixels as 0, so that flat areas lower the value.
    """
    *sources, gf = planes.cached(_gradients)
    total, weight = np.zeros(planes.shape), np.zeros(planes.shape)
    for g in sources:
        larger = np.maximum(g.strength, gf.strength)
        kept = (np.minimum(g.strength, gf.strength) + QG_EPSILON) / (larger + QG_EPSILON)
        orientation = np.abs(np.abs(g.angle - gf.angle) - math.pi / 2) * (2 / math.pi)
        total += QG_STRENGTH(kept) * QG_ANGLE(orientation) * g.strength
        weight += g.strength
    edges = weight > 0
    if not edges.any():
        one = np.ones(1)
        return 0.0 if gf.strength.any() else float((QG_STRENGTH(one) * QG_ANGLE(one))[0])
    ratios = total[edges] / weight[edges]
    return float(ratios.mean() if convention == "correct" else ratios.sum() / total.size)
