"""What histograms tell: EN, MI, NMI, Qncie, CE.

All on 256 bins, one per grey level. A joint histogram of two constant images is one bin: entropies and mutual
information are 0 then, and the ratios are defined in the docstrings.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from tcmoa_calibration.metrics.frames import Plane, Planes
from tcmoa_calibration.metrics.registry import Convention, metric

LEVELS = 256


class Joint(NamedTuple):
    """Joint frequencies of two planes, [LEVELS, LEVELS], and the frequencies of each."""

    both: Plane
    first: Plane
    second: Plane

    @property
    def entropies(self) -> tuple[float, float, float]:
        """Of the first, of the second and of both, in bits."""
        return entropy(self.first), entropy(self.second), entropy(self.both)

    @property
    def information(self) -> float:
        """What they tell about each other, in bits: H(first) + H(second) - H(both)."""
        first, second, both = self.entropies
        return max(first + second - both, 0.0)

    @property
    def saturation_gain(self) -> float:
        """What the joint entropy loses where level 255 of both is counted with 254, in bits."""
        merged = self.both[:-1, :-1].copy()
        merged[-1] += self.both[-1, :-1]
        merged[:, -1] += self.both[:-1, -1]
        merged[-1, -1] += self.both[-1, -1]
        return entropy(self.both) - entropy(merged)


def entropy(frequencies: Plane) -> float:
    """-sum p log2 p, in bits; p of 0 adds nothing."""
    p = frequencies[frequencies > 0]
    return max(-float(np.sum(p * np.log2(p))), 0.0)


def histogram(plane: Plane) -> Plane:
    """[LEVELS] frequencies, sum 1."""
    return np.bincount(plane.astype(np.intp).ravel(), minlength=LEVELS) / plane.size


def joint(first: Plane, second: Plane) -> Joint:
    """The joint histogram of two planes of whole numbers 0..255."""
    index = first.astype(np.intp).ravel() * LEVELS + second.astype(np.intp).ravel()
    both = np.bincount(index, minlength=LEVELS * LEVELS).reshape(LEVELS, LEVELS) / first.size
    return Joint(both, both.sum(axis=1), both.sum(axis=0))


def stretched(plane: Plane) -> Plane:
    """A plane by its own minimum and maximum to 0..255, rounded; a constant one stays as it is."""
    low, high = plane.min(), plane.max()
    if high == low:
        return plane
    whole: Plane = np.floor((plane - low) / (high - low) * (LEVELS - 1) + 0.5)
    return whole


def _joints(planes: Planes) -> tuple[Joint, Joint, Joint]:
    """Of a and f, b and f, a and b."""
    return joint(planes.a, planes.f), joint(planes.b, planes.f), joint(planes.a, planes.b)


def _stretched_joints(planes: Planes) -> tuple[Joint, Joint]:
    """Of a and f, b and f, each plane stretched."""
    a, b, f = (stretched(plane) for plane in planes.each)
    return joint(a, f), joint(b, f)


@metric("EN", sources=False)
def en(planes: Planes, convention: Convention) -> float:
    """Entropy of the fused image: H(F) = -sum p log2 p over 256 grey levels (Roberts 2008).

    In bits, 0 (constant) .. 8 (all levels equally frequent); higher is taken for better, which noise satisfies, too.
    Profiles: by colour only (VIFB and MEFB: mean over R, G, B).
    """
    return entropy(histogram(planes.f))


@metric("MI", published="tang")
def mi(planes: Planes, convention: Convention) -> float:
    """Mutual information I(A,F) + I(B,F) (Qu 2002).

    In bits, 0 .. 2 H(F); higher is better; symmetric in x and y; 0 where the fused image or both sources are
    constant. Favours images of many levels: two figures compare for one pair of sources only.
    Profiles: `tang` and as-published count level 255 with 254 in the joint histogram, and there only (its index is
    min(v + 1, 255)): up to 1e-4 off the correct value; `vifb` and `mefb` stretch each image to 0..255 and use natural
    logarithms (times 0.693).
    """
    if convention in ("correct", "tang"):
        with_a, with_b, _ = planes.once(_joints)
        information = with_a.information + with_b.information
        if convention == "tang":
            information += with_a.saturation_gain + with_b.saturation_gain
        return information
    with_a, with_b = planes.once(_stretched_joints)
    return (with_a.information + with_b.information) * math.log(2)


@metric("NMI")
def nmi(planes: Planes, convention: Convention) -> float:
    """Normalised mutual information of fusion: 2 (I(A,F) / (H(A)+H(F)) + I(B,F) / (H(B)+H(F))) (Hossny 2008).

    0 .. 2, 2 for identical images; higher is better; symmetric in x and y. Images are stretched to 0..255 first. Two
    constant images have nothing to tell and tell it: their term counts as 1. Not scikit-learn's NMI.
    Profiles: by colour only.
    """
    total = 0.0
    for pair in planes.once(_stretched_joints):
        first, second, _ = pair.entropies
        total += 2 * pair.information / (first + second) if first + second > 0 else 1.0
    return total


@metric("Qncie")
def qncie(planes: Planes, convention: Convention) -> float:
    """Nonlinear correlation information entropy (Wang 2005; Wang, Shen, Jin 2008).

    NCC(X,Y) = H(X) + H(Y) - H(X,Y) with logarithms to base 256; R the 3x3 matrix of NCC among A, B, F with ones on
    its diagonal; 1 + sum(l/3 log256(l/3)) over its eigenvalues l. Between 1 - log256(3) = 0.8019 (nothing in common,
    which constant images are) and 1; higher is better; symmetric in x and y. Identical images reach 1 only if all
    256 levels are equally frequent, and differences between methods show in the third digit only.
    Profiles: by colour only.
    """
    with_a, with_b, sources = (pair.information / 8 for pair in planes.once(_joints))
    matrix = np.array([[1, sources, with_a], [sources, 1, with_b], [with_a, with_b, 1]])
    share = np.clip(np.linalg.eigvalsh(matrix) / 3, 0, None)
    return 1 - entropy(share) / 8


@metric("CE", higher=False)
def ce(planes: Planes, convention: Convention) -> float:
    """Cross entropy of the fused image's histogram against the sources': mean of sum p_A log2(p_A / p_F) and p_B's.

    In bits, 0 (same histogram) and up; lower is better; symmetric in x and y (Bulanon 2009). Levels that either image
    lacks are left out, which makes the figure finite and, at times, negative; place plays no part at all.
    Profiles: by colour only.
    """
    f = histogram(planes.f)
    total = 0.0
    for source in (planes.a, planes.b):
        p = histogram(source)
        shared = (p > 0) & (f > 0)
        total += float(np.sum(p[shared] * np.log2(p[shared] / f[shared])))
    return total / 2
