"""Means, weights and rounding that the methods share. Images are float32, [H, W] or [H, W, C]."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from tcmoa_runtime.typing import Frame

FloatImage: TypeAlias = NDArray[np.float32]

TINY = np.float32(1e-6)


def to_uint8(image: FloatImage) -> Frame:
    """Round halves up and clip to 0..255."""
    rounded: Frame = np.clip(np.floor(image + 0.5), 0, 255).astype(np.uint8)
    return rounded


def mean(a: FloatImage, b: FloatImage) -> FloatImage:
    """Average two images."""
    return (a + b) * np.float32(0.5)


def mix(
    a: FloatImage, b: FloatImage, strength_a: FloatImage, strength_b: FloatImage, power: int
) -> FloatImage:
    """Average two images weighted by strength^power, with equal weights where both strengths are 0.

    Args:
        a: First image.
        b: Second image.
        strength_a: Values >= 0, of the shape of a or one that broadcasts to it.
        strength_b: Values >= 0, of the shape of `strength_a`.
        power: 1 is proportional; large powers choose the stronger one.
    """
    larger = np.maximum(strength_a, strength_b) + TINY
    weight_a, weight_b = ((strength / larger) ** power + TINY for strength in (strength_a, strength_b))
    return np.asarray((weight_a * a + weight_b * b) / (weight_a + weight_b), np.float32)


def box_mean(image: FloatImage, side: int) -> FloatImage:
    """Average over a square window of `side` px; the image is mirrored beyond its border."""
    import cv2

    return np.asarray(cv2.boxFilter(image, -1, (side, side), borderType=cv2.BORDER_REFLECT), np.float32)


def gaussian_mean(image: FloatImage, sigma: float) -> FloatImage:
    """Average under a Gaussian window of `sigma` px; the image is mirrored beyond its border."""
    import cv2

    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REFLECT), np.float32)
