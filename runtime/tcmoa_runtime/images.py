"""Images in files and in bytes, and the conversion of arrays into frames that a graph takes.

A file and its bytes are decoded by the same code, with the same checks and messages. The same rules hold for files,
bytes and arrays:

- uint8 is taken unchanged. uint16 is stretched: a low percentile becomes 0 and a high one 255, per image and over all
  its channels, because infrared cameras use a small part of 16 bits.
- Gray is repeated in all channels. A color image for a one-channel source becomes its luma (BT.601).
- An alpha channel is dropped.
- All other arrays are refused.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tcmoa_runtime.errors import InputError, in_remedy
from tcmoa_runtime.image_header import (
    ASSOCIATED_ALPHA,
    MIN_IS_WHITE,
    RGB,
    UNASSOCIATED_ALPHA,
    ImageFormat,
    ImageHeader,
    TiffTags,
    read_format,
    read_header,
)
from tcmoa_runtime.partial import partial_file
from tcmoa_runtime.regular_file import open_regular_file
from tcmoa_runtime.typing import ChannelOrder, Frame, FrameSize, ImageLike, Percentiles

IMAGE_FORMATS: Final = MappingProxyType[str, ImageFormat](
    {
        ".bmp": "BMP",
        ".jpeg": "JPEG",
        ".jpg": "JPEG",
        ".png": "PNG",
        ".tif": "TIFF",
        ".tiff": "TIFF",
        ".webp": "WebP",
    }
)
"""Format of an image file by its suffix in lowercase."""
IMAGE_SUFFIXES: Final = frozenset(IMAGE_FORMATS)

EncodedImage: TypeAlias = bytes | bytearray | memoryview
"""The bytes of an image file."""

DEFAULT_PERCENTILES: Final[Percentiles] = (1.0, 99.0)

LUMA: Final = (0.299, 0.587, 0.114)
"""Weights of R, G and B in the luma of BT.601, full range."""

JPEG_QUALITY: Final = 95

MAX_PIXELS: Final = 1 << 28
"""Most pixels that are decoded, e.g. 16384x16384; in color with 16 bits they take 1.6 GB."""
MAX_FILE_BYTES: Final = 2 << 30
"""Most bytes of an encoded image."""

_FORMATS: Final = "PNG, JPEG, TIFF, BMP or WebP"


def format_size(size: tuple[int, ...]) -> str:
    """Format the size of an array [H, W, ...] as WIDTHxHEIGHT."""
    return f"{size[1]}x{size[0]}"


def stretch_to_uint8(image: NDArray[np.uint16], percentiles: Percentiles = DEFAULT_PERCENTILES) -> Frame:
    """Stretch a uint16 array of any shape to uint8 by percentiles; a constant image becomes black."""
    low, high = np.percentile(image, percentiles)
    span = float(high - low)
    if span <= 0:
        low, high = float(image.min()), float(image.max())
        span = max(high - low, 1.0)
    scaled = (image.astype(np.float32) - np.float32(low)) * np.float32(255 / span)
    return np.clip(np.round(scaled), 0, 255).astype(np.uint8)


def check_percentiles(percentiles: Percentiles) -> Percentiles:
    """Return the percentiles; raises InputError unless 0 <= low < high <= 100."""
    low, high = percentiles
    if not 0 <= low < high <= 100:
        raise InputError(
            f"{low:g},{high:g}; expected two percentiles, 0 <= LOW < HIGH <= 100", subject="stretch"
        )
    return low, high


def as_array(value: object, name: str) -> NDArray[Any]:
    """Return `value` as an array.

    Raises:
        InputError: It is not an array, e.g. rows of different lengths; the subject is `name`.
    """
    try:
        return np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"a {type(value).__name__} that is not an array; expected rows of equal length", subject=name
        ) from error


def to_frame(
    image: ImageLike,
    name: str,
    channels: int = 3,
    *,
    order: ChannelOrder = "rgb",
    percentiles: Percentiles = DEFAULT_PERCENTILES,
) -> Frame:
    """Convert an image into a contiguous frame, uint8 [H, W, channels].

    Args:
        image: [H, W], [H, W, 1], [H, W, 3] or [H, W, 4], uint8 or uint16.
        name: Name of the image in error messages.
        channels: 1 or 3.
        order: Channel order of `image`, for the luma of a one-channel source.
        percentiles: Percentiles of uint16 that become black and white.

    Raises:
        InputError: The image has another shape or type; the subject is `name`.
    """
    array = as_array(image, name)
    shape = list(array.shape)
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4):
        raise InputError(f"shape {shape}; expected [H, W], [H, W, 1], [H, W, 3] or [H, W, 4]", subject=name)
    if array.size == 0:
        raise InputError(f"shape {shape}, which is empty; expected an image", subject=name)
    if array.shape[2] == 4:
        array = array[..., :3]
    if array.dtype == np.uint16:
        array = stretch_to_uint8(array, percentiles)
    elif array.dtype != np.uint8:
        raise InputError(
            f"holds {array.dtype}; expected uint8, or uint16 to be stretched",
            subject=name,
            remedy="Scale it to 0..255 and convert it with .astype(numpy.uint8)",
        )
    if array.shape[2] == 1 and channels == 3:
        array = np.repeat(array, 3, axis=2)
    elif array.shape[2] == 3 and channels == 1:
        weights = np.array(LUMA if order == "rgb" else LUMA[::-1], np.float32)
        array = np.round(array.astype(np.float32) @ weights[:, None]).astype(np.uint8)
    return np.ascontiguousarray(array)


def in_order(image: NDArray[Any], order: ChannelOrder) -> NDArray[Any]:
    """Convert from RGB to `order`, or back; an image [H, W] without channels is returned unchanged."""
    return np.ascontiguousarray(image[..., ::-1]) if order == "bgr" and image.ndim == 3 else image


def resize_frame(frame: Frame, size: FrameSize) -> Frame:
    """Resize a frame [H, W] or [H, W, C] to (height, width), by area if it shrinks, else bilinear."""
    import cv2

    shrinks = frame.shape[0] > size[0] or frame.shape[1] > size[1]
    resized = cv2.resize(frame, size[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return np.asarray(resized, np.uint8).reshape(*size, *frame.shape[2:])


def read_image(path: str | os.PathLike[str], *, max_pixels: int | None = None) -> NDArray[Any]:
    """Read an image file without conversion, its orientation tag applied and alpha dropped.

    Args:
        path: The file.
        max_pixels: Most pixels that are decoded; `MAX_PIXELS` if None or more than that.

    Returns:
        uint8 or uint16, [H, W] or RGB [H, W, 3].

    Raises:
        InputError: The file is missing, no regular file, not an image, too large, has other than 8 or 16 bits per
            channel, or is stored in a way that the decoder does not read rightly.
    """
    file = Path(path)
    return decode_image(_read_file(file), str(file), max_pixels=max_pixels)


def decode_image(data: EncodedImage, name: str, *, max_pixels: int | None = None) -> NDArray[Any]:
    """Decode the bytes of an image file as `read_image` does, with the same checks and messages.

    The bytes are not copied, except those of a TIFF file with unassociated alpha.

    Args:
        data: The bytes of the file, contiguous.
        name: Name of the image in error messages.
        max_pixels: Most pixels that are decoded; `MAX_PIXELS` if None or more than that. The header is compared with
            it before anything is decoded.

    Returns:
        uint8 or uint16, [H, W] or RGB [H, W, 3].

    Raises:
        InputError: The data are not bytes, not an image, too large, have other than 8 or 16 bits per channel, or are
            stored in a way that the decoder does not read rightly; the subject is `name`.
    """
    encoded = _as_bytes(data, name)
    header = _read_header(encoded, name)
    limit = MAX_PIXELS if max_pixels is None else min(max_pixels, MAX_PIXELS)
    if header.width * header.height > limit:
        raise InputError(
            f"not a readable image ({header.width}x{header.height}, more pixels than can be decoded); "
            f"expected at most {limit} pixels",
            subject=name,
        )
    problem = None if header.tiff is None else _describe_unread_tiff(header, header.tiff)
    if problem is not None:
        raise _unread(name, problem)
    image = _decode(encoded, header, name)
    if image.dtype not in (np.uint8, np.uint16):
        raise InputError(f"holds {image.dtype}; expected 8 or 16 bits per channel", subject=name)
    size = header.height, header.width
    if image.shape[:2] not in (size, size[::-1]) or (image.dtype == np.uint16) != (header.bits > 8):
        raise _unread(
            name,
            f"{header.width}x{header.height} with {header.bits} bits per channel, but decoded to "
            f"{format_size(image.shape)} with {image.itemsize * 8}",
        )
    if header.tiff is not None and header.tiff.photometric == MIN_IS_WHITE and image.dtype == np.uint16:
        image = ~image  # which the decoder does for 8 bits only
    return np.ascontiguousarray(image[..., ::-1]) if image.ndim == 3 else np.asarray(image)


def _read_file(file: Path) -> bytes:
    """Return the bytes of an image file, of another file the first 16."""
    try:
        with open_regular_file(file, max_bytes=MAX_FILE_BYTES, follow_links=True) as opened:
            if read_format(start := opened.read(16)) is None:
                return start
            opened.seek(0)
            return opened.read(os.fstat(opened.fileno()).st_size)  # not more: the buffer is allocated first
    except FileNotFoundError:
        raise InputError("no such image file", subject=file) from None
    except (OSError, ValueError) as error:  # ValueError: a NUL character
        raise InputError(f"cannot be read: {getattr(error, 'strerror', error)}", subject=file) from error


def _as_bytes(data: EncodedImage, name: str) -> memoryview:
    """Return a view of `data`, of one axis of bytes."""
    try:
        view = memoryview(data).cast("B")
    except TypeError as error:
        raise InputError(
            f"a {type(data).__name__}; expected the bytes of an image file, contiguous", subject=name
        ) from error
    if view.nbytes > MAX_FILE_BYTES:
        raise InputError(
            f"cannot be read: {view.nbytes} bytes; expected at most {MAX_FILE_BYTES}", subject=name
        )
    return view


def _read_header(data: memoryview, name: str) -> ImageHeader:
    if not data:
        raise InputError("an empty file; expected an image", subject=name)
    header = read_header(data)
    if header is None:
        raise InputError(f"not a readable image; expected {_FORMATS}", subject=name)
    return header


def _describe_unread_tiff(header: ImageHeader, tiff: TiffTags) -> str | None:
    """Describe a way of storing 16 bits that OpenCV does not read rightly; None for others."""
    if header.bits <= 8:
        return None
    if tiff.samples == 2 or tiff.samples > 4:
        return f"{header.bits} bits with {tiff.samples} samples per pixel"
    if tiff.is_planar and tiff.samples > 1:
        return f"{header.bits} bits with each channel stored by itself"
    if tiff.samples > 2 and tiff.photometric != RGB:
        return f"{header.bits} bits in another color space than RGB"
    return None


def _decode(data: memoryview, header: ImageHeader, name: str) -> NDArray[Any]:
    """Decode an image, BGR."""
    import cv2

    encoded = np.frombuffer(data, np.uint8)
    if header.tiff is not None and header.tiff.photometric == RGB and header.tiff.extra_at is not None:
        encoded = _with_associated_alpha(data, header.tiff.extra, *header.tiff.extra_at)
    try:
        image = cv2.imdecode(encoded, cv2.IMREAD_ANYDEPTH | cv2.IMREAD_ANYCOLOR)
    except (cv2.error, MemoryError) as error:
        reason = "more pixels than can be decoded" if "pixel" in str(error).lower() else "decoding failed"
        raise InputError(f"not a readable image ({reason}); expected {_FORMATS}", subject=name) from error
    if image is None:
        raise InputError(f"not a readable image; expected {_FORMATS}", subject=name)
    return np.asarray(image)


def _with_associated_alpha(
    data: memoryview, values: tuple[int, ...], position: int, code: str
) -> NDArray[np.uint8]:
    """Return a TIFF file whose alpha counts as multiplied into the color: then libtiff leaves the color unchanged."""
    changed = bytearray(data)
    for index, value in enumerate(values):
        if value == UNASSOCIATED_ALPHA:
            struct.pack_into(code, changed, position + index * struct.calcsize(code), ASSOCIATED_ALPHA)
    return np.frombuffer(changed, np.uint8)


def _unread(name: str, problem: str) -> InputError:
    return InputError(
        f"{problem}; expected an image that can be decoded as it is stored",
        subject=name,
        remedy="Convert it to a PNG file of 8 or 16 bits per channel",
    )


def read_frame(
    path: str | os.PathLike[str],
    channels: int = 3,
    *,
    percentiles: Percentiles = DEFAULT_PERCENTILES,
    max_pixels: int | None = None,
) -> Frame:
    """Read an image file as a frame, uint8 [H, W, channels], RGB or one channel.

    Raises:
        InputError: As `read_image`.
    """
    return to_frame(read_image(path, max_pixels=max_pixels), str(path), channels, percentiles=percentiles)


def decode_frame(
    data: EncodedImage,
    name: str,
    channels: int = 3,
    *,
    percentiles: Percentiles = DEFAULT_PERCENTILES,
    max_pixels: int | None = None,
) -> Frame:
    """Decode the bytes of an image file into a frame, uint8 [H, W, channels], RGB or one channel.

    Raises:
        InputError: As `decode_image`.
    """
    return to_frame(decode_image(data, name, max_pixels=max_pixels), name, channels, percentiles=percentiles)


def check_writable(path: str | os.PathLike[str]) -> Path:
    """Return `path`; raises InputError when no image can be written there (unknown format, missing folder)."""
    target = Path(path)
    if target.is_dir():
        raise InputError(
            "a folder; expected an image file",
            subject=target,
            remedy=f"Name the image, e.g. {in_remedy(target / 'fused.png')}",
        )
    if target.suffix.lower() not in IMAGE_SUFFIXES:
        raise InputError(
            f"image format {target.suffix!r}; expected {', '.join(sorted(IMAGE_SUFFIXES))}", subject=target
        )
    if not target.parent.is_dir():
        raise InputError(
            f"the folder {target.parent} does not exist", subject=target, remedy="Create it first"
        )
    return target


def write_image(path: str | os.PathLike[str], image: Frame) -> None:
    """Write an image, RGB uint8 [H, W, 3] or gray uint8 [H, W]; see `write_bytes`.

    Raises:
        InputError: The format is unknown, the folder is missing or read-only, or the disk is full.
    """
    target = check_writable(path)
    write_bytes(target, encode_image(image, IMAGE_FORMATS[target.suffix.lower()], str(target)))


def encode_image(image: Frame, image_format: ImageFormat, name: str = "image") -> bytes:
    """Encode an image into the bytes of a file, the same that `write_image` writes.

    Args:
        image: RGB uint8 [H, W, 3] or gray uint8 [H, W].
        image_format: The format; `IMAGE_FORMATS` has that of each suffix. JPEG has quality 95.
        name: Name of the image in error messages.

    Raises:
        InputError: The format cannot hold the image, e.g. for its size; the subject is `name`.
    """
    import cv2

    bgr = image[..., ::-1] if image.ndim == 3 and image.shape[2] == 3 else image
    options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if image_format == "JPEG" else []
    size = format_size(image.shape)
    try:
        ok, data = cv2.imencode(f".{image_format.lower()}", np.ascontiguousarray(bgr), options)
    except cv2.error as error:
        raise InputError(f"{size} pixels do not fit this format", subject=name) from error
    if not ok:
        raise InputError(f"{size} pixels could not be encoded", subject=name)
    return data.tobytes()


def write_bytes(target: Path, data: bytes) -> None:
    """Write a file under a temporary name beside `target` and rename it; no file is left after a failure.

    Raises:
        InputError: The file cannot be written.
    """
    try:
        with partial_file(target) as partial:
            partial.write_bytes(data)
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror}", subject=target) from error
