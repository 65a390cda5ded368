"""Methods that weight pixels: average, maximum and OpenCV's exposure fusion."""

from __future__ import annotations

import numpy as np

from tcmoa_calibration.baselines.arrays import to_uint8
from tcmoa_calibration.baselines.color import to_color
from tcmoa_runtime.typing import Frame


def average(x: Frame, y: Frame) -> Frame:
    """Average the sources, (x + y) / 2, with halves rounded up."""
    return ((x.astype(np.uint16) + y + 1) // 2).astype(np.uint8)


def maximum(x: Frame, y: Frame) -> Frame:
    """Select the larger value of x and y in each channel."""
    return np.maximum(x, y)


def mertens(x: Frame, y: Frame) -> Frame:
    """Fuse by exposure fusion as implemented in OpenCV, with all three measures to the power of 1 as in the paper.

    (OpenCV's own default leaves out well-exposedness.) Saturation is left out if a source has no color: it would be 0
    and make every weight of e.g. an infrared image 0. Gray images are fused as R = G = B, because exposedness is a
    product over channels.

    Source: Mertens, Kautz, Van Reeth 2007.
    """
    import cv2

    saturation = float(_has_color(x) and _has_color(y))
    merge = cv2.createMergeMertens(1.0, saturation, 1.0)  # one for each call: not documented as thread-safe
    fused = np.asarray(merge.process([to_color(x), to_color(y)]), np.float32) * np.float32(255)
    return to_uint8(fused if x.ndim == 3 else fused[..., 0])


def _has_color(image: Frame) -> bool:
    return image.ndim == 3 and bool(np.any(image != image[..., :1]))
