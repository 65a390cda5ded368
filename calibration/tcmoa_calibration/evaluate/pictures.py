"""Pictures of the report: sources, fused images, differences and prompt maps, each with a thumbnail.

They are JPEG files of quality 95 without chroma subsampling; metrics are computed from the original images.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tcmoa_calibration.evaluate.runners import FusedImage
from tcmoa_calibration.luma import reduce_to_uint8, rounded_luma
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.images import in_order, write_bytes
from tcmoa_runtime.typing import Frame

THUMBNAIL_SIDE_PX: Final = 480
"""A picture whose longer side exceeds this gets a thumbnail, which the page shows."""
QUALITY: Final = 95
MAX_DIFFERENCE: Final = 64
"""Difference in gray levels that has the full color."""

DARK: Final = np.array([24, 24, 28], np.float32)
BRIGHTER: Final = np.array([255, 158, 27], np.float32)
DARKER: Final = np.array([64, 150, 255], np.float32)

_HASH_CHARACTERS: Final = 24


@dataclass(frozen=True)
class Picture:
    """A picture file.

    Attributes:
        file: Name in the folder of pictures.
        small: Name of the thumbnail, equal to `file` if the picture is small itself.
        width: Width of `file` in pixels.
        height: Height of `file` in pixels.
    """

    file: str
    small: str
    width: int
    height: int


def write_sources(folder: Path, x: Frame, y: Frame, x_hash: str, y_hash: str) -> dict[str, Picture]:
    """Write the pictures `x` and `y`, named by the hashes of their files; existing files stay."""
    return {
        "x": _write(folder, x_hash[:_HASH_CHARACTERS], x),
        "y": _write(folder, y_hash[:_HASH_CHARACTERS], y),
    }


def write_fused(folder: Path, key: str, x: Frame, y: Frame, fused: FusedImage) -> dict[str, Picture]:
    """Write the pictures `fused`, `difference` and, if the method has a prompt, `prompt`, named by `key`."""
    frame = reduce_to_uint8(fused.image)
    pictures = {"fused": frame, "difference": difference_picture(x, y, frame)}
    if fused.share_of_x is not None:
        pictures["prompt"] = prompt_picture(fused.share_of_x, x.shape[:2], fused.token_px)
    return {
        kind: _write(folder, f"{key[:_HASH_CHARACTERS]}-{kind}", picture)
        for kind, picture in pictures.items()
    }


def difference_picture(x: Frame, y: Frame, fused: Frame) -> Frame:
    """Draw the luma of the fused image minus the mean of the sources' lumas, RGB [H, W, 3].

    Dark if equal, orange if the fused image is brighter, blue if it is darker; 64 gray levels have the full color. It
    shows what a method adds to averaging.
    """
    difference = rounded_luma(fused) - (rounded_luma(x) + rounded_luma(y)) / 2
    strength = np.clip(np.abs(difference) / MAX_DIFFERENCE, 0, 1).astype(np.float32)[..., None]
    color = np.where(difference[..., None] > 0, BRIGHTER, DARKER)
    return np.round(DARK + strength * (color - DARK)).astype(np.uint8)


def prompt_picture(share: NDArray[np.float32], size: tuple[int, ...], token_px: int | None) -> Frame:
    """Draw the weight of x for each token, RGB [H, W, 3]: red for x, blue for y, green for both equally.

    Args:
        share: Weights of x [gh, gw], 0 to 1.
        size: (H, W) of the picture.
        token_px: Side of a token in pixels; None to divide the picture evenly.
    """
    import cv2

    levels = np.round(share * 255).astype(np.uint8)
    if token_px is None:
        levels = np.asarray(cv2.resize(levels, (size[1], size[0]), interpolation=cv2.INTER_NEAREST), np.uint8)
    else:  # the last tokens may extend beyond the image
        levels = levels.repeat(token_px, axis=0).repeat(token_px, axis=1)[: size[0], : size[1]]
    return in_order(np.asarray(cv2.applyColorMap(levels, cv2.COLORMAP_TURBO), np.uint8), "bgr")


def _write(folder: Path, name: str, image: Frame) -> Picture:
    import cv2

    height, width = image.shape[:2]
    file = small = f"{name}.jpg"
    _write_jpeg(folder / file, image)
    longer = max(height, width)
    if longer > THUMBNAIL_SIDE_PX:
        size = (max(1, width * THUMBNAIL_SIDE_PX // longer), max(1, height * THUMBNAIL_SIDE_PX // longer))
        small = f"{name}-small.jpg"
        thumbnail = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
        _write_jpeg(folder / small, thumbnail)
    return Picture(file, small, width, height)


def _write_jpeg(path: Path, image: Frame) -> None:
    """Write a file unless it exists: its name is a hash of what it shows."""
    import cv2

    if path.is_file():
        return
    options = [cv2.IMWRITE_JPEG_QUALITY, QUALITY]
    options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    try:
        is_encoded, data = cv2.imencode(".jpg", in_order(image, "bgr"), options)
    except cv2.error:
        is_encoded = False
    if not is_encoded:
        raise InputError(
            f"{image.shape[1]}x{image.shape[0]}; expected a size that JPEG can hold", subject=path
        )
    write_bytes(path, data.tobytes())
