"""Images in and out of files, and any sensible array into the frame that a graph takes.

The rule, for files and arrays alike:

- uint8 stays as it is; uint16 is stretched: the low percentile becomes 0, the high one 255, per image and over
  all its channels (infrared cameras use a small part of 16 bits);
- grey is repeated in all channels; a colour image for a one-channel source becomes its luma (BT.601);
- an alpha channel is dropped;
- anything else is refused.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from tcmoa_runtime.errors import InputError

Frame = NDArray[np.uint8]
ChannelOrder = Literal["rgb", "bgr"]

IMAGE_SUFFIXES: Final = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})
STRETCH: Final = (1.0, 99.0)
"""Percentiles of a 16-bit image that become black and white unless told otherwise."""

LUMA: Final = (0.299, 0.587, 0.114)
"""Y of BT.601 full range from R, G, B."""

JPEG_QUALITY: Final = 95


def stretch_to_uint8(image: NDArray[np.uint16], percentiles: tuple[float, float] = STRETCH) -> Frame:
    """A uint16 image [...] to uint8 by percentiles; a constant image becomes black."""
    low, high = np.percentile(image, percentiles)
    span = float(high - low)
    if span <= 0:
        low, high = float(image.min()), float(image.max())
        span = max(high - low, 1.0)
    scaled = (image.astype(np.float32) - np.float32(low)) * np.float32(255 / span)
    return np.clip(np.round(scaled), 0, 255).astype(np.uint8)


def check_percentiles(percentiles: tuple[float, float]) -> tuple[float, float]:
    """The percentiles of a 16-bit stretch, or InputError unless 0 <= low < high <= 100."""
    low, high = percentiles
    if not 0 <= low < high <= 100:
        raise InputError(f"16-bit stretch is {low:g},{high:g}: expected percentiles 0 <= LOW < HIGH <= 100")
    return low, high


def as_array(value: Any, name: str) -> NDArray[Any]:
    """`value` as an array; InputError where it cannot be one, as rows of different lengths."""
    try:
        return np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"{name} is a {type(value).__name__} that is no array: expected equal rows of numbers"
        ) from error


def to_frame(
    image: Any,
    name: str,
    channels: int = 3,
    *,
    order: ChannelOrder = "rgb",
    percentiles: tuple[float, float] = STRETCH,
) -> Frame:
    """An array [H, W], [H, W, 1], [H, W, 3] or [H, W, 4] as a contiguous uint8 frame [H, W, channels].

    `order` is the channel order of `image`; it only matters where colour has to become one channel. Raises
    InputError naming `name`, the shape or dtype that arrived, and what is taken.
    """
    array = as_array(image, name)
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4):
        raise InputError(
            f"{name} has shape {np.shape(image)}: expected [H, W], [H, W, 1], [H, W, 3] or [H, W, 4]"
        )
    if array.size == 0:
        raise InputError(f"{name} has shape {np.shape(image)}: it is empty")
    if array.shape[2] == 4:
        array = array[..., :3]
    if array.dtype == np.uint16:
        array = stretch_to_uint8(array, percentiles)
    elif array.dtype != np.uint8:
        raise InputError(
            f"{name} holds {array.dtype}: expected uint8, or uint16 to be stretched; "
            f"scale it to 0..255 and convert it with .astype(numpy.uint8)"
        )
    if array.shape[2] == 1 and channels == 3:
        array = np.repeat(array, 3, axis=2)
    elif array.shape[2] == 3 and channels == 1:
        weights = np.array(LUMA if order == "rgb" else LUMA[::-1], np.float32)
        array = np.round(array.astype(np.float32) @ weights[:, None]).astype(np.uint8)
    return np.ascontiguousarray(array)


def resize_frame(frame: Frame, size: tuple[int, int]) -> Frame:
    """A frame [H, W] or [H, W, C] at `size` (height, width): by area where it shrinks, else bilinear."""
    import cv2

    shrinks = frame.shape[0] > size[0] or frame.shape[1] > size[1]
    resized = cv2.resize(frame, size[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return np.asarray(resized, np.uint8).reshape(*size, *frame.shape[2:])


def read_image(path: str | os.PathLike[str]) -> NDArray[Any]:
    """An image file as it is: uint8 or uint16, [H, W] or RGB [H, W, 3]; alpha dropped, orientation tag applied.

    Raises InputError when the file is missing, unreadable, no image, or holds something else than 8 or 16 bits.
    """
    import cv2

    file = Path(path)
    try:
        data = np.fromfile(file, np.uint8)
    except FileNotFoundError:
        raise InputError(f"{file}: no such image file") from None
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror}") from error
    if not data.size:
        raise InputError(f"{file}: is empty, expected an image")
    try:
        image = cv2.imdecode(data, cv2.IMREAD_ANYDEPTH | cv2.IMREAD_ANYCOLOR)
    except (cv2.error, MemoryError) as error:
        reason = "more pixels than can be decoded" if "pixel" in str(error).lower() else "decoding failed"
        raise InputError(
            f"{file}: not a readable image ({reason}); expected PNG, JPEG, TIFF, BMP or WebP"
        ) from error
    if image is None:
        raise InputError(f"{file}: not a readable image; expected PNG, JPEG, TIFF, BMP or WebP")
    if image.dtype not in (np.uint8, np.uint16):
        raise InputError(f"{file}: holds {image.dtype} numbers, expected 8 or 16 bits per channel")
    return np.ascontiguousarray(image[..., ::-1]) if image.ndim == 3 else np.asarray(image)


def read_frame(
    path: str | os.PathLike[str], channels: int = 3, *, percentiles: tuple[float, float] = STRETCH
) -> Frame:
    """An image file as an RGB (or one-channel) uint8 frame [H, W, channels] by the rule of this module."""
    return to_frame(read_image(path), str(path), channels, percentiles=percentiles)


def check_writable(path: str | os.PathLike[str]) -> Path:
    """`path` if an image could be written there, else InputError (format unknown, folder missing)."""
    target = Path(path)
    if target.suffix.lower() not in IMAGE_SUFFIXES:
        raise InputError(
            f"{target}: cannot write '{target.suffix}' images; end it in {', '.join(sorted(IMAGE_SUFFIXES))}"
        )
    if not target.parent.is_dir():
        raise InputError(f"{target}: the folder {target.parent} does not exist; create it first")
    if target.is_dir():
        raise InputError(f"{target}: is a folder, expected a file name")
    return target


def write_image(path: str | os.PathLike[str], image: Frame) -> None:
    """Write an RGB [H, W, 3] or grey [H, W] uint8 image; beside its place first, then renamed.

    Raises InputError when the format is unknown, the folder missing or not writable, or the disk full.
    """
    import cv2

    target = check_writable(path)
    shown = image[..., ::-1] if image.ndim == 3 and image.shape[2] == 3 else image
    options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if target.suffix.lower() in (".jpg", ".jpeg") else []
    try:
        ok, data = cv2.imencode(target.suffix, np.ascontiguousarray(shown), options)
    except cv2.error as error:
        ok, reason = False, error
        raise InputError(
            f"{target}: {image.shape[1]}x{image.shape[0]} pixels do not fit this format"
        ) from reason
    if not ok:
        raise InputError(f"{target}: could not be encoded")
    write_bytes(target, data.tobytes())


def write_bytes(target: Path, data: bytes) -> None:
    """Write a file beside its place and rename it; InputError when that fails, with nothing left behind."""
    partial = None
    try:
        handle, partial = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        mask = os.umask(0)
        os.umask(mask)
        Path(partial).chmod(0o666 & ~mask)
        Path(partial).replace(target)
        partial = None
    except OSError as error:
        raise InputError(f"{target}: cannot be written: {error.strerror}") from error
    finally:  # also when interrupted
        if partial is not None:
            Path(partial).unlink(missing_ok=True)
