"""Contrast and sharpness of the fused image alone: SD, Variance, AG, EI, SF.

None of them depends on the sources, so noise raises all of them.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from tcmoa_calibration.metrics.filters import sobel
from tcmoa_calibration.metrics.planes import Planes
from tcmoa_calibration.metrics.registry import Convention, metric

BLACK: Final = 0
WHITE: Final = 255


@metric("SD", needs_sources=False, published="tang")
def sd(planes: Planes, convention: Convention) -> float:
    """Compute the standard deviation of the fused image, sqrt(mean((F - mean F)^2)).

    Source: the statistical definition; fusion papers cite Rao 1997.
    Range: 0 (constant image) to 127.5 gray levels; higher is better.
    Profiles: `tang` and `as-published` compute in uint8 as Tang's toolbox does: d = round(F - mean) and d^2 both
    saturate at 0 and 255, so that pixels darker than the mean count as 0 and no pixel adds more than 255. The result is
    at most 15.97, and about 9.8 for a photograph whose correct value is 42.
    """
    if convention == "tang":
        above = np.clip(np.floor(planes.f - planes.f.mean() + 0.5), BLACK, WHITE)
        return float(np.sqrt(np.mean(np.minimum(above * above, WHITE))))
    return float(planes.f.std())


@metric("Variance", needs_sources=False)
def variance(planes: Planes, convention: Convention) -> float:
    """Compute the standard deviation of the fused image under the name that VIFB prints; it is not a variance.

    Source: VIFB (Zhang 2020).
    Range: 0 (constant image) to 127.5 gray levels; higher is better.
    Profiles: differ in the treatment of color only; `vifb` is the mean of the correct SD of R, G and B.
    """
    return float(planes.f.std())


@metric("AG", needs_sources=False, min_side=2)
def ag(planes: Planes, convention: Convention) -> float:
    """Compute the average gradient of the fused image, sum(sqrt((dx^2 + dy^2) / 2)) / ((H - 1)(W - 1)).

    dx and dy are central differences, one-sided at the border.

    Source: Cui, Feng, Xu, Li, Chen 2015.
    Range: 0 (constant image) and above, in gray levels per pixel; higher is better.
    Profiles: differ in the treatment of color only.
    """
    dy, dx = np.gradient(planes.f)
    h, w = planes.shape
    return float(np.sum(np.sqrt((dx * dx + dy * dy) / 2))) / ((h - 1) * (w - 1))


@metric("EI", needs_sources=False, min_side=2)
def ei(planes: Planes, convention: Convention) -> float:
    """Compute the edge intensity: the mean Sobel magnitude of the fused image, with the border repeated.

    Source: Rajalingam, Priya 2018.
    Range: 0 (constant image) to about 1082 gray levels; higher is better.
    Profiles: differ in the treatment of color only.
    """
    return float(np.hypot(*sobel(planes.f, "edge")).mean())


@metric("SF", needs_sources=False, min_side=2, side_by_side_in=("vifb", "mefb"))
def sf(planes: Planes, convention: Convention) -> float:
    """Compute the spatial frequency sqrt(RF^2 + CF^2) of the fused image.

    RF and CF are the root mean squares of the differences between neighbors in rows and in columns.

    Source: Eskicioglu, Fisher 1995.
    Range: 0 (constant image) to 361 gray levels; higher is better.
    Profiles: `tang` takes images in 0..1, which gives values 255 times smaller. `vifb` and `mefb` divide the sums by
    the number of pixels instead of the number of differences, and treat a color image as R, G and B side by side, so
    that the steps from one to the next count too.
    """
    across, down = np.diff(planes.f, axis=1), np.diff(planes.f, axis=0)
    if convention in ("vifb", "mefb"):
        return float(np.sqrt((np.sum(across * across) + np.sum(down * down)) / planes.f.size))
    frequency = float(np.sqrt(np.mean(across * across) + np.mean(down * down)))
    return frequency / WHITE if convention == "tang" else frequency
