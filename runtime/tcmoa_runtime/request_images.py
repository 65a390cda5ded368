"""Images of a request to a server: how many and how large they may be, and those that are image files."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tcmoa_runtime.contract import FUSED
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.image_header import ImageFormat
from tcmoa_runtime.images import EncodedImage, decode_image, format_size, in_order
from tcmoa_runtime.typing import ChannelOrder, FrameSize

MAX_FRAMES: Final = 64
"""Pairs of one request: a pair of one pixel takes as long as one of the bundle's size."""
MAX_SIDE_PX: Final = 32_768
"""Longest side of a frame."""
DEFAULT_MAX_PIXELS: Final = 1 << 26
"""Pixels of all images of a source of one request, 8192x8192: 600 MB when 16 bits in color are stretched."""


FUSED_FILES: Final[Mapping[str, ImageFormat]] = {f"{FUSED}_png": "PNG", f"{FUSED}_jpeg": "JPEG"}
"""Outputs that are the fused frames as image files."""


def frame_size(image: NDArray[Any]) -> FrameSize | None:
    """Return (height, width) of a frame [H, W] or [H, W, C] or of frames [B, H, W, C]; None if it is none of them."""
    if image.ndim not in (2, 3, 4):
        return None
    height, width = image.shape[1:3] if image.ndim == 4 else image.shape[:2]
    return height, width


def check_extent(image: NDArray[Any], name: str, max_pixels: int) -> None:
    """Check how much a request asks for; other shapes than those of images are left to the fuser.

    Args:
        image: A frame [H, W] or [H, W, C], or frames [B, H, W, C].
        name: Name of the images in error messages.
        max_pixels: Most pixels of all its frames.

    Raises:
        InputError: There are too many frames or pixels, or a side is too long.
    """
    axes = image.shape
    if image.ndim == 4 and axes[0] > MAX_FRAMES:
        raise InputError(f"{axes[0]} frames; expected at most {MAX_FRAMES} in a request", subject=name)
    frame = axes[1:] if image.ndim == 4 else axes
    if len(frame) < 2:
        return
    if max(frame[:2]) > MAX_SIDE_PX:
        raise InputError(
            f"{format_size(frame)}; expected sides of at most {MAX_SIDE_PX} pixels", subject=name
        )
    pixels = math.prod(frame[:2]) * (axes[0] if image.ndim == 4 else 1)
    if pixels > max_pixels:
        raise InputError(f"{pixels} pixels; expected at most {max_pixels} in a request", subject=name)


def decode_frames(
    files: Sequence[EncodedImage], name: str, order: ChannelOrder, *, max_pixels: int
) -> NDArray[Any]:
    """Decode the image files of a request, which must be of one size and type.

    Args:
        files: The bytes of each file.
        name: Name of the images in error messages.
        order: Channel order of the result.
        max_pixels: Most pixels of all files; as these are of one size, each may have an equal part of them.

    Returns:
        uint8 or uint16 [B, H, W, 1 or 3].

    Raises:
        InputError: A file is no image, or there are too many, too large or different ones.
    """
    if not 1 <= len(files) <= MAX_FRAMES:
        raise InputError(f"{len(files)} image files; expected 1 to {MAX_FRAMES} in a request", subject=name)
    images: list[NDArray[Any]] = []
    for index, data in enumerate(files):
        own_name = name if len(files) == 1 else f"{name}[{index}]"
        image = decode_image(data, own_name, max_pixels=max_pixels // len(files))
        images.append(image if image.ndim == 3 else image[..., None])
    first = images[0]
    different = next((i for i in images if i.shape != first.shape or i.dtype != first.dtype), None)
    if different is not None:
        raise InputError(
            f"images of {_describe(first)} and of {_describe(different)}; expected images of one size and type in a "
            "request",
            subject=name,
        )
    ordered = [image if image.shape[2] == 1 else in_order(image, order) for image in images]
    return np.stack(ordered) if len(ordered) > 1 else ordered[0][None]


def _describe(image: NDArray[Any]) -> str:
    color = " in gray" if image.shape[2] == 1 else ""
    return f"{format_size(image.shape)}{color} in {image.dtype}"
