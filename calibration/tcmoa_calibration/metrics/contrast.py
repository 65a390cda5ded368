"""Contrast and sharpness of the fused image alone: SD, Variance, AG, EI, SF.

None looks at the sources: noise raises them all.
"""

from __future__ import annotations

import numpy as np

from tcmoa_calibration.metrics.filters import sobel
from tcmoa_calibration.metrics.frames import Planes
from tcmoa_calibration.metrics.registry import Convention, metric

BLACK, WHITE = 0, 255


@metric("SD", sources=False, published="tang")
def sd(planes: Planes, convention: Convention) -> float:
    """Standard deviation of the fused image: sqrt(mean((F - mean F)^2)) (Rao 1997).

    In grey levels, 0 (constant) .. 127.5; higher is taken for better.
    Profiles: `tang` and as-published compute in uint8 as Tang's toolbox did: d = round(F - mean) and d^2 both saturate
    at 0 and 255, so pixels darker than the mean vanish and no pixel adds more than 255. At most 15.97, about 9.8 for
    a natural image whose correct value is 42.
    """
    if convention == "tang":
        above = np.clip(np.floor(planes.f - planes.f.mean() + 0.5), BLACK, WHITE)
        return float(np.sqrt(np.mean(np.minimum(above * above, WHITE))))
    return float(planes.f.std())


@metric("Variance", sources=False)
def variance(planes: Planes, convention: Convention) -> float:
    """Standard deviation of the fused image under the name that VIFB prints for it; no variance despite it.

    In grey levels, 0 .. 127.5. Profiles: by colour only, so that here `vifb` is the correct SD of R, G, B averaged.
    """
    return float(planes.f.std())


@metric("AG", sources=False, min_side=2)
def ag(planes: Planes, convention: Convention) -> float:
    """Average gradient of the fused image: sum sqrt((dx^2 + dy^2) / 2) / ((H-1)(W-1)), central differences (Cui 2015).

    In grey levels per pixel, 0 (constant) and up; higher is taken for better. Profiles: by colour only.
    """
    dy, dx = np.gradient(planes.f)
    h, w = planes.shape
    return float(np.sum(np.sqrt((dx * dx + dy * dy) / 2))) / ((h - 1) * (w - 1))


@metric("EI", sources=False, min_side=2)
def ei(planes: Planes, convention: Convention) -> float:
    """Edge intensity: mean of the fused image's Sobel magnitude, the border repeated (Rajalingam 2018).

    In grey levels, 0 (constant) .. about 1082; higher is taken for better. Profiles: by colour only.
    """
    return float(np.hypot(*sobel(planes.f, "edge")).mean())


@metric("SF", sources=False, min_side=2, abreast_in=("vifb", "mefb"))
def sf(planes: Planes, convention: Convention) -> float:
    """Spatial frequency sqrt(RF^2 + CF^2), root mean squares of steps across and down (Eskicioglu, Fisher 1995).

    In grey levels, 0 (constant) .. 361; higher is taken for better.
    Profiles: `tang` takes images in 0..1, 255 times less. `vifb` and `mefb` divide the sums by all pixels instead of
    by the steps, and see a colour image as R, G and B side by side: the jumps from one to the next count, too.
    """
    across, down = np.diff(planes.f, axis=1), np.diff(planes.f, axis=0)
    if convention in ("vifb", "mefb"):
        return float(np.sqrt((np.sum(across * across) + np.sum(down * down)) / planes.f.size))
    frequency = float(np.sqrt(np.mean(across * across) + np.mean(down * down)))
    return frequency / WHITE if convention == "tang" else frequency
