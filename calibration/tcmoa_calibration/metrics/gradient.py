"""How well edges arrive: Qabf and Qg.

Both compare strength and orientation of Sobel gradients of each source with those of the fused image. Orientations
are of lines, not of arrows: a contrast reversed is an edge preserved.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np

from tcmoa_calibration.metrics.filters import sobel
from tcmoa_calibration.metrics.frames import Plane, Planes
from tcmoa_calibration.metrics.registry import Convention, metric


class Gradient(NamedTuple):
    """Of one plane."""

    strength: Plane
    """sqrt(gx^2 + gy^2)."""
    angle: Plane
    """atan(gy / gx), in -pi/2 .. pi/2; pi/2 where gx is 0."""


class Sigmoid(NamedTuple):
    """gamma / (1 + exp(kappa (v - sigma)))."""

    gamma: float
    kappa: float
    sigma: float

    def __call__(self, value: Plane) -> Plane:
        """At each pixel."""
        return self.gamma / (1 + np.exp(self.kappa * (value - self.sigma)))


SMOOTH: Final = (1.0, 2.0, 1.0)
QABF_STRENGTH: Final = Sigmoid(0.9994, -15, 0.5)
QABF_ANGLE: Final = Sigmoid(0.9879, -22, 0.8)
QG_STRENGTH: Final = Sigmoid(1, -10, 0.5)
QG_ANGLE: Final = Sigmoid(1, -20, 0.75)
QG_EPSILON: Final = 1e-5


def gradient(plane: Plane) -> Gradient:
    """By Sobel's operator; beyond the border counts as black, as in MATLAB's conv2, which draws a frame of edges."""
    gx, gy = sobel(plane)
    return _polar(-gx, gy)  # the signs of MATLAB's conv2, which turns the masks over


def _polar(gx: Plane, gy: Plane) -> Gradient:
    flat = gx == 0
    angle = np.arctan(gy / np.where(flat, 1, gx))
    angle[flat] = math.pi / 2
    return Gradient(np.sqrt(gx * gx + gy * gy), angle)


def _gradient_of_unit_image(plane: Plane) -> Gradient:
    """As `gradient` of plane / 255, rounded as MATLAB's conv2 rounds: column by column, from the lower right.

    On flat ground the nine products no longer cancel. Their order decides whether gx is 0 or 1e-17, that is whether
    an angle is pi/2 or -pi/2, and with it the fourth digit of Tang's Qabf.
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
    return planes.of_each(gradient)


def _gradients_of_unit_images(planes: Planes) -> tuple[Gradient, Gradient, Gradient]:
    return planes.of_each(_gradient_of_unit_image)


def _strength_kept(source: Plane, fused: Plane) -> Plane:
    """The lesser strength over the greater, 0..1; 1 where both are 0."""
    greater = np.maximum(source, fused)
    kept: Plane = np.where(greater > 0, np.minimum(source, fused) / np.where(greater > 0, greater, 1), 1.0)
    return kept


@metric("Qabf", min_side=3, published="vifb")
def qabf(planes: Planes, convention: Convention) -> float:
    """Edge preservation Q^AB/F (Xydeas, Petrovic 2000), each pixel weighted by its source's gradient (L = 1).

    Strength kept (0.9994, -15, 0.5) times orientation kept 1 - |angle difference| / (pi/2) (0.9879, -22, 0.8), both
    through a sigmoid. 0 .. 0.9748, which identical images reach, not 1, for the sigmoids never do; higher is
    better; symmetric in x and y. Where both sources are black there are no edges to keep: the figure is that of
    identical images if the fused one has no edges either, and 0 otherwise.
    Traps: angles are atan(gy / gx) and do not wrap, so that two nearly parallel edges beside the axis where the sign
    turns count as opposite (wrapping would add 0.05 .. 0.07); beyond the border is black.
    Profiles: all but `correct` set the ratio of equal strengths to the strength itself instead of 1, which changes
    the sixth digit (flat places weigh nothing). `tang` takes images in 0..1, where strengths are below 1 and rounding
    draws angles on flat ground: up to 1.2e-3 lower.
    """
    *sources, gf = planes.once(_gradients_of_unit_images if convention == "tang" else _gradients)
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
    """Gradient preservation Q_G (Xydeas, Petrovic 2000, in the form of Liu 2012), the mean of per-pixel ratios.

    Sigmoids (1, -10, 0.5) of strength and (1, -20, 0.75) of orientation ||angle difference| - pi/2| * 2/pi, which
    does wrap; (Q_AF gA + Q_BF gB) / (gA + gB) at each pixel, then the mean, unlike Qabf's ratio of sums. 0 .. 0.9867,
    which identical images reach; higher is better; symmetric in x and y. Pixels where neither source has a gradient
    have no ratio and are left out of the mean; where there are no others, as in Qabf.
    Profiles: all but `correct` count those pixels as 0, so that flat skies lower the figure.
    """
    *sources, gf = planes.once(_gradients)
    total, weight = np.zeros(planes.shape), np.zeros(planes.shape)
    for g in sources:
        greater = np.maximum(g.strength, gf.strength)
        kept = (np.minimum(g.strength, gf.strength) + QG_EPSILON) / (greater + QG_EPSILON)
        orientation = np.abs(np.abs(g.angle - gf.angle) - math.pi / 2) * (2 / math.pi)
        total += QG_STRENGTH(kept) * QG_ANGLE(orientation) * g.strength
        weight += g.strength
    edges = weight > 0
    if not edges.any():
        one = np.ones(1)
        return 0.0 if gf.strength.any() else float((QG_STRENGTH(one) * QG_ANGLE(one))[0])
    ratios = total[edges] / weight[edges]
    return float(ratios.mean() if convention == "correct" else ratios.sum() / total.size)
