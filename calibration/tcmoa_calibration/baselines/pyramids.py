"""Laplacian pyramids, and the methods that fuse them."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from tcmoa_calibration.baselines.arrays import FloatImage, box_mean, gaussian_mean, mean, mix, to_uint8
from tcmoa_calibration.baselines.color import with_fused_luma
from tcmoa_runtime.typing import Frame

MAX_LEVELS: Final = 5
"""Halvings of a pyramid: detail up to about 64 px wide is selected, wider detail is in the base."""

MIN_SIDE: Final = 8
"""Shorter side of the base in pixels; smaller images are not halved."""

ACTIVITY_POWER: Final = 4
ACTIVITY_WINDOW: Final = 5
BASE_SIGMA: Final = 4.0
"""In pixels of the base, each of 32 px of the image: the weight of a base changes over about 128 px."""

EXPOSURE_POWER: Final = 2
EXPOSURE_WINDOW: Final = 3
EXPOSURE_SIGMA: Final = 0.2 * 255
"""Spread of well-exposed levels about the middle, as in exposure fusion (Mertens 2007)."""
LOCAL_EXPOSURE_SIGMA: Final = 0.3 * 255
LOCAL_BASE_SIGMA: Final = 3.0
"""In pixels of the base, each of 32 px of the image."""


def build_pyramid(image: FloatImage) -> list[FloatImage]:
    """Return the details from fine to coarse, then the base.

    The image is halved while the shorter side keeps MIN_SIDE pixels, MAX_LEVELS times at most.

    Source: Burt, Adelson 1983.
    """
    levels: list[FloatImage] = []
    rest = image
    while len(levels) < MAX_LEVELS and (min(rest.shape[:2]) + 1) // 2 >= MIN_SIDE:
        half = halve(rest)
        levels.append(rest - upsample(half, rest))
        rest = half
    return [*levels, rest]


def collapse_pyramid(levels: list[FloatImage]) -> FloatImage:
    """Return the image of a pyramid."""
    image = levels[-1]
    for detail in levels[-2::-1]:
        image = upsample(image, detail) + detail
    return image


def halve(image: FloatImage) -> FloatImage:
    """Blur an image and keep every second pixel, from the first."""
    import cv2

    return np.asarray(cv2.pyrDown(image), np.float32)


def upsample(image: FloatImage, like: FloatImage) -> FloatImage:
    """Double an image, to the size of `like`."""
    import cv2

    h, w = like.shape[:2]
    return np.asarray(cv2.pyrUp(image, dstsize=(w, h)), np.float32)


def laplacian(x: Frame, y: Frame) -> Frame:
    """Fuse Laplacian pyramids: the stronger detail is selected, the base is averaged.

    Images under 15 pixels are averaged. The stronger detail has the larger sum of magnitudes over channels, so that R,
    G and B of a pixel come from one source and no false colors appear; equal details are averaged.

    Source: Burt, Adelson 1983 (pyramid); Burt 1984 (selection).
    """
    from_x, from_y = build_pyramid(x.astype(np.float32)), build_pyramid(y.astype(np.float32))
    fused = [mean(from_x[-1], from_y[-1])]
    for detail_x, detail_y in zip(from_x[-2::-1], from_y[-2::-1], strict=True):
        lead = _strength(detail_x) - _strength(detail_y)
        fused.insert(0, np.where(lead > 0, detail_x, np.where(lead < 0, detail_y, mean(detail_x, detail_y))))
    return to_uint8(collapse_pyramid(fused))


def _strength(detail: FloatImage) -> FloatImage:
    """Sum magnitudes over channels, to [H, W] or [H, W, 1]."""
    size: FloatImage = np.abs(detail)
    return size if detail.ndim == 2 else size.sum(axis=2, keepdims=True)


def activity(x: Frame, y: Frame) -> Frame:
    """Fuse luma by pyramids in which detail and base are weighted by activity.

    The activity of detail is the mean magnitude of 5x5 pixels. That of the base is the sum of all finer magnitudes,
    halved as the image is and smoothed. Each level is mixed in the shares of activity^4: nearly a choice where one
    source leads, and without speckles or blotches where they are equal. Chroma is mixed by saturation, so that a gray
    source does not pale the other. Images under 15 pixels are averaged in luma.

    Choosing the base instead of averaging it decides on visible-infrared pairs: an average is pale where infrared is
    bright.

    Source: Burt, Kolczynski 1993 (local activity and weights between choice and average); Toet 1989 (pyramid fusion of
    visible and thermal images); the activity of the base is not from a paper.
    """
    return with_fused_luma(x, y, fuse_by_activity)


def fuse_by_activity(x: FloatImage, y: FloatImage) -> FloatImage:
    """Fuse two lumas [H, W], 0 to 255, as `activity` describes."""
    from_x, from_y = build_pyramid(x), build_pyramid(y)
    if len(from_x) == 1:
        return mean(x, y)
    fused: list[FloatImage] = []
    total_x, total_y = np.zeros_like(x), np.zeros_like(y)
    for detail_x, detail_y in zip(from_x[:-1], from_y[:-1], strict=True):
        size_x, size_y = np.abs(detail_x), np.abs(detail_y)
        near_x, near_y = (box_mean(size, ACTIVITY_WINDOW) for size in (size_x, size_y))
        fused.append(mix(detail_x, detail_y, near_x, near_y, ACTIVITY_POWER))
        total_x, total_y = halve(total_x + size_x), halve(total_y + size_y)
    total_x, total_y = (gaussian_mean(total, BASE_SIGMA) for total in (total_x, total_y))
    return collapse_pyramid([*fused, mix(from_x[-1], from_y[-1], total_x, total_y, ACTIVITY_POWER)])


def exposure(x: Frame, y: Frame) -> Frame:
    """Fuse luma by pyramids with weighted detail and one weight for the whole base.

    Detail is mixed in the shares of its squared mean magnitude of 3x3 pixels. The base is mixed in the shares of the
    sources' mean well-exposedness, exp(-(level - 127.5)^2 / (2 * 51^2)) averaged over the image. Because the base has
    one weight, light places stay lighter than dark ones, and no halos surround lamps. Chroma is mixed by saturation.

    Source: Mertens, Kautz, Van Reeth 2007 (well-exposedness, pyramids); Burt, Kolczynski 1993 (weights by activity); a
    base with one weight is not from a paper.
    """
    return with_fused_luma(x, y, fuse_by_exposure)


def fuse_by_exposure(x: FloatImage, y: FloatImage, *, is_local: bool = False) -> FloatImage:
    """Fuse two lumas [H, W], 0 to 255, as `exposure` describes.

    Args:
        x: First luma.
        y: Second luma.
        is_local: Let the weight of the base follow the well-exposedness around a place (a Gaussian of sigma 96 px,
            spread 76 levels) instead of that of the whole image. A network that sees windows can learn it; light places
            may become as dark as dark ones.
    """
    from_x, from_y = build_pyramid(x), build_pyramid(y)
    fused: list[FloatImage] = []
    for detail_x, detail_y in zip(from_x[:-1], from_y[:-1], strict=True):
        near_x, near_y = (box_mean(np.abs(detail), EXPOSURE_WINDOW) for detail in (detail_x, detail_y))
        fused.append(mix(detail_x, detail_y, near_x, near_y, EXPOSURE_POWER))
    if is_local:
        exposed_x, exposed_y = (
            gaussian_mean(_exposedness(base, LOCAL_EXPOSURE_SIGMA).astype(np.float32), LOCAL_BASE_SIGMA)
            for base in (from_x[-1], from_y[-1])
        )
    else:
        exposed_x, exposed_y = (_exposedness(image, EXPOSURE_SIGMA).mean(keepdims=True) for image in (x, y))
    return collapse_pyramid([*fused, mix(from_x[-1], from_y[-1], exposed_x, exposed_y, 1)])


def _exposedness(levels: FloatImage, sigma: float) -> NDArray[np.float64]:
    """Return how near levels are to the middle, 0 to 1."""
    return np.asarray(np.exp(-((levels.astype(np.float64) - 127.5) ** 2) / (2 * sigma**2)))
