"""Color of fused images whose luma is fused by itself."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tcmoa_calibration.baselines.arrays import FloatImage, mix, to_uint8
from tcmoa_runtime.images import LUMA
from tcmoa_runtime.typing import Frame


def float_luma(image: Frame) -> FloatImage:
    """Compute the luma of [H, W] or RGB [H, W, 3] without rounding."""
    values = image.astype(np.float32)
    return values if image.ndim == 2 else np.asarray(values @ np.asarray(LUMA, np.float32), np.float32)


def with_fused_luma(x: Frame, y: Frame, fuse: Callable[[FloatImage, FloatImage], FloatImage]) -> Frame:
    """Fuse the lumas of two images, and add their chroma mixed by saturation.

    Each source counts by |B - Y| + |R - Y|. Both differences have one weight, so that a color is never made of one
    difference of x and the other of y. A source without color has no weight.

    Source: the rule of DeepFuse (Ram Prabhakar 2017), which weights Cb and Cr one by one.
    """
    luma_x, luma_y = float_luma(x), float_luma(y)
    luma = fuse(luma_x, luma_y)
    if x.ndim == 2:
        return to_uint8(luma)
    chroma_x, chroma_y = x - luma_x[..., None], y - luma_y[..., None]
    saturation_x, saturation_y = (
        np.abs(chroma[..., :1]) + np.abs(chroma[..., 2:]) for chroma in (chroma_x, chroma_y)
    )
    return to_uint8(luma[..., None] + mix(chroma_x, chroma_y, saturation_x, saturation_y, 1))


def to_color(image: Frame) -> Frame:
    """Return RGB [H, W, 3]; gray becomes R = G = B."""
    return image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)
