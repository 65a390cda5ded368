"""Methods that take each pixel from one source: for multi-focus pairs."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from tcmoa_calibration.baselines.arrays import FloatImage, box_mean, gaussian_mean, to_uint8
from tcmoa_calibration.baselines.color import float_luma
from tcmoa_runtime.contract import PATCH
from tcmoa_runtime.images import LUMA
from tcmoa_runtime.typing import Frame

DETAIL_WINDOW: Final = 7
FOCUS_SIGMA: Final = 5.0
"""In pixels: detail is averaged over about 20 px before the sources are compared."""

MIN_REGION: Final = 0.01
"""Smaller regions of a decision, as a share of the image, take the decision around them."""

GUIDED_RADIUS: Final = 5
GUIDED_EPSILON: Final = 0.3
"""Variance, of levels from 0 to 1, below which a decision is smoothed."""


def patches(x: Frame, y: Frame) -> Frame:
    """Select each 16x16 patch from the source with the larger peak of |Sobel x| + |Sobel y| of luma; x in a tie.

    The grid starts at the top left; patches at the right and bottom may be smaller. The border is repeated for the
    gradient. A reference for multi-focus pairs: the sharper source, patch by patch.
    """
    from_x = _peaks(x) >= _peaks(y)
    h, w = x.shape[:2]
    mask = from_x.repeat(PATCH, axis=0)[:h].repeat(PATCH, axis=1)[:, :w]
    return np.where(mask if x.ndim == 2 else mask[..., None], x, y)


def _peaks(image: Frame) -> NDArray[np.float64]:
    """Return the largest |Sobel x| + |Sobel y| of each patch, [ceil(H / 16), ceil(W / 16)], in 1/1000 gray level.

    Whole numbers, so that rounding does not decide between two flat patches.
    """
    import cv2

    thousandths = np.round(np.asarray(LUMA) * 1000)  # 299, 587, 114
    luma = image @ thousandths if image.ndim == 3 else image * thousandths.sum()
    across, down = (
        np.asarray(cv2.Sobel(luma, cv2.CV_64F, *order, borderType=cv2.BORDER_REPLICATE))
        for order in ((1, 0), (0, 1))
    )
    h, w = luma.shape
    rows, columns = -(-h // PATCH), -(-w // PATCH)
    edges = np.pad(np.abs(across) + np.abs(down), ((0, rows * PATCH - h), (0, columns * PATCH - w)))
    peaks: NDArray[np.float64] = edges.reshape(rows, PATCH, columns, PATCH).max(axis=(1, 3))
    return peaks


def focus(x: Frame, y: Frame) -> Frame:
    """Select the sharper source by a decision map without small regions, with soft borders.

    The sharper source has the larger |luma - mean of 7x7 px|, smoothed by a Gaussian of sigma 5 px. Regions under 1 %
    of the image take the decision around them. A guided filter on the first fusion (radius 5 px) smooths the map where
    the image is flat and keeps its borders at edges. Away from borders, each pixel equals one source.

    Source: Li, Kang, Hu 2013 (guided filter on decisions); Qiu, Li, Zhang, Yuan 2019 (detail against a mean, small
    regions, guided filter).
    """
    weight = focus_weight(float_luma(x), float_luma(y))
    weight = weight if x.ndim == 2 else weight[..., None]
    return to_uint8(weight * x + (1 - weight) * y)


def focus_weight(x: FloatImage, y: FloatImage) -> FloatImage:
    """Compute the weight of x from two lumas [H, W], 0 to 255, as `focus` describes: [H, W], 0 to 1."""
    sharpness_x, sharpness_y = (
        gaussian_mean(np.abs(image - box_mean(image, DETAIL_WINDOW)), FOCUS_SIGMA) for image in (x, y)
    )
    from_x = remove_small_regions(sharpness_x >= sharpness_y, MIN_REGION)
    first = np.asarray(np.where(from_x, x, y) / 255, np.float32)
    weight = guided_filter(first, from_x.astype(np.float32), GUIDED_RADIUS, GUIDED_EPSILON)
    return np.clip(weight, np.float32(0), np.float32(1))


def remove_small_regions(mask: NDArray[np.bool_], min_share: float) -> NDArray[np.bool_]:
    """Flip connected regions under `min_share` of the image: first of true, then of false pixels."""
    import cv2

    out = mask.copy()
    for value in (True, False):
        regions = (out == value).astype(np.uint8)
        _, labels, stats, _ = cv2.connectedComponentsWithStats(regions, connectivity=4)
        is_small = stats[:, cv2.CC_STAT_AREA] < min_share * mask.size
        is_small[0] = False  # the pixels of the other value
        out[is_small[labels]] = not value
    return out


def guided_filter(guide: FloatImage, image: FloatImage, radius: int, epsilon: float) -> FloatImage:
    """Smooth an image where the guide is flat.

    Args:
        guide: [H, W], levels from 0 to 1.
        image: [H, W].
        radius: Of the square window, in pixels.
        epsilon: Variance of the guide up to which a window counts as flat.

    Source: He, Sun, Tang 2013, Eq. 5, 6 and 8.
    """
    side = 2 * radius + 1
    mean_guide, mean_image = box_mean(guide, side), box_mean(image, side)
    covariance = box_mean(guide * image, side) - mean_guide * mean_image
    variance = box_mean(guide * guide, side) - mean_guide * mean_guide
    slope = np.asarray(covariance / (variance + np.float32(epsilon)), np.float32)
    offset = mean_image - slope * mean_guide
    return box_mean(slope, side) * guide + box_mean(offset, side)
