"""Metrics of histograms: EN, MI, NMI, Qncie, CE.

Histograms have 256 bins, one for each gray level. The joint histogram of two constant images is one bin, with entropy
and mutual information 0; the docstrings define the ratios for this case.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np

from tcmoa_calibration.luma import Plane
from tcmoa_calibration.metrics.planes import Planes
from tcmoa_calibration.metrics.registry import Convention, metric

LEVELS: Final = 256


class JointHistogram(NamedTuple):
    """Frequencies of two planes: joint [LEVELS, LEVELS], and of each [LEVELS]."""

    both: Plane
    first: Plane
    second: Plane

    @property
    def entropies(self) -> tuple[float, float, float]:
        """Entropies of the first, the second and both, in bits."""
        return entropy(self.first), entropy(self.second), entropy(self.both)

    @property
    def information(self) -> float:
        """Mutual information H(first) + H(second) - H(both), in bits."""
        first, second, both = self.entropies
        return max(first + second - both, 0.0)

    @property
    def saturation_gain(self) -> float:
        """Loss of joint entropy, in bits, when level 255 of both planes is counted as 254."""
        merged = self.both[:-1, :-1].copy()
        merged[-1] += self.both[-1, :-1]
        merged[:, -1] += self.both[:-1, -1]
        merged[-1, -1] += self.both[-1, -1]
        return entropy(self.both) - entropy(merged)


def entropy(frequencies: Plane) -> float:
    """Compute -sum(p log2 p) in bits; p = 0 adds nothing."""
    p = frequencies[frequencies > 0]
    return max(-float(np.sum(p * np.log2(p))), 0.0)


def histogram(plane: Plane) -> Plane:
    """Compute the frequencies [LEVELS] of a plane of whole numbers; their sum is 1."""
    return np.bincount(plane.astype(np.intp).ravel(), minlength=LEVELS) / plane.size


def joint_histogram(first: Plane, second: Plane) -> JointHistogram:
    """Compute the joint histogram of two planes of whole numbers from 0 to 255."""
    index = first.astype(np.intp).ravel() * LEVELS + second.astype(np.intp).ravel()
    both = np.bincount(index, minlength=LEVELS * LEVELS).reshape(LEVELS, LEVELS) / first.size
    return JointHistogram(both, both.sum(axis=1), both.sum(axis=0))


def stretch(plane: Plane) -> Plane:
    """Stretch a plane from its minimum and maximum to 0..255 and round it; a constant plane stays."""
    low, high = plane.min(), plane.max()
    if high == low:
        return plane
    whole: Plane = np.floor((plane - low) / (high - low) * (LEVELS - 1) + 0.5)
    return whole


def _joint_histograms(planes: Planes) -> tuple[JointHistogram, JointHistogram, JointHistogram]:
    """Return those of a and f, of b and f, and of a and b."""
    a, b, f = planes.all
    return joint_histogram(a, f), joint_histogram(b, f), joint_histogram(a, b)


def _stretched_joint_histograms(planes: Planes) -> tuple[JointHistogram, JointHistogram]:
    """Return those of a and f, and of b and f, each plane stretched."""
    a, b, f = (stretch(plane) for plane in planes.all)
    return joint_histogram(a, f), joint_histogram(b, f)


@metric("EN", needs_sources=False)
def en(planes: Planes, convention: Convention) -> float:
    """Compute the entropy of the fused image, H(F) = -sum(p log2 p) over 256 gray levels.

    Source: Roberts, van Aardt, Ahmed 2008.
    Range: 0 (constant image) to 8 bits (all levels equally frequent); higher is better, although noise raises it.
    Profiles: differ in the treatment of color only.
    """
    return entropy(histogram(planes.f))


@metric("MI", published="tang")
def mi(planes: Planes, convention: Convention) -> float:
    """Compute the mutual information I(A, F) + I(B, F).

    Values of different pairs are not comparable: images with many levels have higher ones.

    Source: Qu, Zhang, Yan 2002.
    Range: 0 to 2 H(F) bits; higher is better. 0 if the fused image or both sources are constant.
    Profiles: `tang` and `as-published` count level 255 as 254 in the joint histogram only (its index is min(v + 1,
    255)): up to 1e-4 from the correct value. `vifb` and `mefb` stretch each image to 0..255 and use natural
    logarithms, a factor of 0.693.
    """
    if convention in ("correct", "tang"):
        with_a, with_b, _ = planes.cached(_joint_histograms)
        information = with_a.information + with_b.information
        if convention == "tang":
            information += with_a.saturation_gain + with_b.saturation_gain
        return information
    with_a, with_b = planes.cached(_stretched_joint_histograms)
    return (with_a.information + with_b.information) * math.log(2)


@metric("NMI")
def nmi(planes: Planes, convention: Convention) -> float:
    """Compute the normalized mutual information 2 (I(A, F) / (H(A) + H(F)) + I(B, F) / (H(B) + H(F))).

    Images are stretched to 0..255 first. It is not the NMI of scikit-learn.

    Source: Hossny, Nahavandi, Creighton 2008.
    Range: 0 to 2 (identical images); higher is better. The term of two constant images is 1.
    Profiles: differ in the treatment of color only.
    """
    total = 0.0
    for pair in planes.cached(_stretched_joint_histograms):
        first, second, _ = pair.entropies
        total += 2 * pair.information / (first + second) if first + second > 0 else 1.0
    return total


@metric("Qncie")
def qncie(planes: Planes, convention: Convention) -> float:
    """Compute the nonlinear correlation information entropy.

    NCC(X, Y) = H(X) + H(Y) - H(X, Y) with logarithms to the base 256; R is the 3x3 matrix of NCC among A, B and F with
    ones on its diagonal; the metric is 1 + sum(l/3 log256(l/3)) over the eigenvalues l of R.

    Source: Wang, Shen, Zhang 2005; Wang, Shen, Jin 2008.
    Range: 1 - log256(3) = 0.8019 (nothing in common; constant images) to 1; higher is better. Identical images reach 1
    only if all 256 levels are equally frequent. Methods differ in the third digit.
    Profiles: differ in the treatment of color only.
    """
    with_a, with_b, sources = (pair.information / 8 for pair in planes.cached(_joint_histograms))
    matrix = np.array([[1, sources, with_a], [sources, 1, with_b], [with_a, with_b, 1]])
    shares = np.clip(np.linalg.eigvalsh(matrix) / 3, 0, None)
    return 1 - entropy(shares) / 8


@metric("CE", higher_is_better=False)
def ce(planes: Planes, convention: Convention) -> float:
    """Compute the cross entropy of the histograms, the mean of sum(p_A log2(p_A / p_F)) and sum(p_B log2(p_B / p_F)).

    Positions of pixels do not matter.

    Source: Bulanon, Burks, Alchanatis 2009.
    Range: 0 (equal histograms) and above, in bits; lower is better. Levels that one of the two images lacks are left
    out, which keeps the value finite but can make it negative.
    Profiles: differ in the treatment of color only.
    """
    f = histogram(planes.f)
    total = 0.0
    for source in (planes.a, planes.b):
        p = histogram(source)
        shared = (p > 0) & (f > 0)
        total += float(np.sum(p[shared] * np.log2(p[shared] / f[shared])))
    return total / 2
