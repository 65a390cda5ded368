"""The report's pictures: sources, fused images, what sets them apart, and prompt maps; each with a small one.

All are JPEG of quality 95 without chroma subsampling: to look at, while figures come from the images themselves.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tcmoa_calibration.evaluate.entrants import Fusion, Image
from tcmoa_calibration.luma import FULL_16_TO_8
from tcmoa_calibration.luma import rounded_luma as to_luma
from tcmoa_runtime.errors import InputError
from tcmoa_runtime.images import write_bytes
from tcmoa_runtime.typing import Frame

SMALL_SIDE: Final = 480
"""Pixels; longer pictures get a small one beside them, which is what the page shows."""
QUALITY: Final = 95
FULL_DIFFERENCE: Final = 64
"""Grey levels at which the colours of a difference end."""

DARK: Final = np.array([24, 24, 28], np.float32)
BRIGHTER: Final = np.array([255, 158, 27], np.float32)
DARKER: Final = np.array([64, 150, 255], np.float32)

Picture = dict[str, Any]
"""`file` and `small` (names in the folder), `width` and `height` in pixels of `file`."""


def write_sources(folder: Path, x: Frame, y: Frame, x_hash: str, y_hash: str) -> dict[str, Picture]:
    """Pictures of x and y, named by the hashes of their files; those that are there already are left alone."""
    return {"x": _write(folder, x_hash[:24], x), "y": _write(folder, y_hash[:24], y)}


def write_fusion(folder: Path, key: str, x: Frame, y: Frame, fusion: Fusion) -> dict[str, Picture]:
    """Pictures `fused`, `difference` and, where there is one, `prompt`, named by `key`."""
    fused = to_uint8(fusion.image)
    pictures = {"fused": fused, "difference": difference_picture(x, y, fused)}
    if fusion.share is not None:
        pictures["prompt"] = prompt_picture(fusion.share, x.shape[:2], fusion.token)
    return {kind: _write(folder, f"{key[:24]}-{kind}", picture) for kind, picture in pictures.items()}


def to_uint8(image: Image) -> Frame:
    """As the metrics see it: 16 bits by their full range."""
    if image.dtype == np.uint16:
        return ((image.astype(np.uint32) + FULL_16_TO_8 // 2) // FULL_16_TO_8).astype(np.uint8)
    return image.astype(np.uint8, copy=False)


def difference_picture(x: Frame, y: Frame, fused: Frame) -> Frame:
    """Luma of the fused image minus the mean of its sources', RGB [H, W, 3].

    Dark where the fused image is the mean, orange where it is brighter, blue where darker: what a method adds to
    averaging. 64 grey levels have the full colour.
    """
    apart = to_luma(fused) - (to_luma(x) + to_luma(y)) / 2
    strength = np.clip(np.abs(apart) / FULL_DIFFERENCE, 0, 1).astype(np.float32)[..., None]
    colour = np.where(apart[..., None] > 0, BRIGHTER, DARKER)
    return np.round(DARK + strength * (colour - DARK)).astype(np.uint8)


def prompt_picture(share: NDArray[np.float32], size: tuple[int, ...], token: int | None) -> Frame:
    """Who dominates where, RGB [H, W, 3]: red x, blue y, green neither; cells of `token` pixels."""
    import cv2

    levels = np.round(share * 255).astype(np.uint8)
    if token is None:
        levels = np.asarray(cv2.resize(levels, (size[1], size[0]), interpolation=cv2.INTER_NEAREST), np.uint8)
    else:  # the last cells may reach beyond the image
        levels = levels.repeat(token, axis=0).repeat(token, axis=1)[: size[0], : size[1]]
    return np.ascontiguousarray(
        np.asarray(cv2.applyColorMap(levels, cv2.COLORMAP_TURBO), np.uint8)[..., ::-1]
    )


def _write(folder: Path, name: str, image: Frame) -> Picture:
    import cv2

    height, width = image.shape[:2]
    picture = {"file": f"{name}.jpg", "small": f"{name}.jpg", "width": width, "height": height}
    _write_jpeg(folder / f"{name}.jpg", image)
    longer = max(height, width)
    if longer > SMALL_SIDE:
        size = (max(1, width * SMALL_SIDE // longer), max(1, height * SMALL_SIDE // longer))
        picture["small"] = f"{name}-small.jpg"
        small = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
        _write_jpeg(folder / f"{name}-small.jpg", small)
    return picture


def _write_jpeg(target: Path, image: Frame) -> None:
    """Unless it is there: names come from hashes of what is shown."""
    import cv2

    if target.is_file():
        return
    options = [cv2.IMWRITE_JPEG_QUALITY, QUALITY]
    options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    try:
        ok, data = cv2.imencode(".jpg", image[..., ::-1] if image.ndim == 3 else image, options)
    except cv2.error:
        ok = False
    if not ok:
        raise InputError(f"{target}: {image.shape[1]}x{image.shape[0]} pixels do not fit a JPEG")
    write_bytes(target, data.tobytes())
