"""Images of a frame for browsers: the fused frame and its sources as JPEG and PNG, and the prompt as a small map."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tcmoa_runtime.images import in_order, resize_frame
from tcmoa_runtime.streams.interfaces import FusedFrame
from tcmoa_runtime.typing import ChannelOrder, Frame

ImageName: TypeAlias = Literal["fused", "x", "y"]
"""An image of a frame."""

PartName: TypeAlias = Literal["fused", "x", "y", "prompt"]
"""A part of a message to a browser: an image, or the prompt map."""

JPEG_QUALITY: Final = 85
"""0 to 100; artifacts are not visible at this quality."""
PNG_COMPRESSION: Final = 3
"""0 to 9; higher levels take several times as long for a few percent."""
WIDTH_STEP_PX: Final = 64
"""Widths are rounded up to a multiple of this, so that browsers of similar size share an image."""


def round_width(width: int) -> int:
    """Round a width in pixels up to the next width that images are encoded in."""
    return max(WIDTH_STEP_PX, -(-width // WIDTH_STEP_PX) * WIDTH_STEP_PX)


def encode_jpeg(frame: FusedFrame, name: ImageName, width: int, channel_order: ChannelOrder) -> bytes | None:
    """Encode an image of a frame, at most `width` pixels wide.

    Args:
        frame: The frame.
        name: Which image.
        width: Largest width in pixels.
        channel_order: Channel order of the images.

    Returns:
        The bytes of the JPEG; None if the frame has no such source.
    """
    import cv2

    image = _image_of(frame, name)
    if image is None:
        return None
    full_height, full_width = image.shape[:2]
    if width < full_width:
        image = resize_frame(image, (max(1, round(full_height * width / full_width)), width))
    return _encode(image, ".jpg", [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY], channel_order)


def encode_png(frame: FusedFrame, name: ImageName, channel_order: ChannelOrder) -> bytes | None:
    """Encode an image of a frame at its own size, without loss.

    Args:
        frame: The frame.
        name: Which image.
        channel_order: Channel order of the images.

    Returns:
        The bytes of the PNG; None if the frame has no such source.
    """
    import cv2

    image = _image_of(frame, name)
    if image is None:
        return None
    return _encode(image, ".png", [cv2.IMWRITE_PNG_COMPRESSION, PNG_COMPRESSION], channel_order)


def encode_prompt(frame: FusedFrame, tc_moa: int | None) -> bytes | None:
    """Return the weight of x in each token as a byte, 0 to 255, row by row.

    Args:
        frame: The frame.
        tc_moa: Index of a TC-MoA from 0; None averages all of them.

    Returns:
        gh * gw bytes; None if the frame has no prompt.
    """
    if frame.prompt is None:
        return None
    of_x: NDArray[np.float32] = frame.prompt[:, 0]  # [K, gh, gw]
    weights = of_x.mean(0) if tc_moa is None else of_x[min(tc_moa, len(of_x) - 1)]
    levels: NDArray[np.uint8] = np.rint(np.clip(weights, 0, 1) * 255).astype(np.uint8)
    return levels.tobytes()


def _encode(image: Frame, suffix: str, parameters: list[int], channel_order: ChannelOrder) -> bytes | None:
    import cv2

    if channel_order == "rgb":
        image = in_order(image, "bgr")
    is_encoded, encoded = cv2.imencode(suffix, np.ascontiguousarray(image), parameters)
    return np.asarray(encoded, np.uint8).tobytes() if is_encoded else None


def _image_of(frame: FusedFrame, name: ImageName) -> Frame | None:
    if name == "fused":
        return frame.image
    source = frame.x if name == "x" else frame.y
    return None if source is None else source.image
