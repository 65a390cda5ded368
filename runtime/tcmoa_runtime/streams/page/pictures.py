"""What the page shows of a frame: JPEGs of the fused picture and its sources, and the prompt as a small map."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from tcmoa_runtime.images import resize_frame
from tcmoa_runtime.streams.interfaces import FusedFrame

VIEWS: Final = ("fused", "x", "y", "prompt")
QUALITY: Final = 85
"""Of JPEGs, for OpenCV: colours and noise look as they are, at about a tenth of the bytes."""
WIDTH_STEP: Final = 64
"""Widths are rounded up to so many pixels, so that browsers of nearly one size share a picture."""


def rounded(width: int) -> int:
    """The next width that pictures are made in."""
    return max(WIDTH_STEP, -(-width // WIDTH_STEP) * WIDTH_STEP)


def encode(frame: FusedFrame, view: str, width: int, channel_order: str) -> bytes | None:
    """`fused`, `x` or `y` as a JPEG of at most `width` pixels across; None where the frame has no such source."""
    import cv2

    source = {"x": frame.x, "y": frame.y}.get(view)
    image = frame.image if view == "fused" else None if source is None else source.image
    if image is None:
        return None
    height, whole = image.shape[:2]
    if width < whole:
        image = resize_frame(image, (max(1, round(height * width / whole)), width))
    if image.ndim == 3 and image.shape[2] == 3 and channel_order == "rgb":
        image = image[..., ::-1]
    done, coded = cv2.imencode(".jpg", np.ascontiguousarray(image), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return np.asarray(coded, np.uint8).tobytes() if done else None


def prompt_levels(frame: FusedFrame, moa: int | None) -> bytes | None:
    """The share of x as gh * gw bytes, row by row, 0 to 255, of one TC-MoA (from 0) or, None, the mean of all.

    None where the frame has no prompt.
    """
    if frame.prompt is None:
        return None
    of_x: NDArray[np.float32] = frame.prompt[:, 0]  # [K, gh, gw]
    chosen = of_x.mean(0) if moa is None else of_x[min(moa, len(of_x) - 1)]
    levels: NDArray[np.uint8] = np.rint(np.clip(chosen, 0, 1) * 255).astype(np.uint8)
    return levels.tobytes()
