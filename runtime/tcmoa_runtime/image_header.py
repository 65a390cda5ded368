"""What the header of an image file says: its format and size, and for TIFF how its samples are stored.

Read before a decoder sees the file, because a small file may unpack to any size; and compared with what the decoder
returned, because decoders leave out some of a container's words.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

ImageFormat: TypeAlias = Literal["PNG", "JPEG", "TIFF", "BMP", "WebP"]

RGB: Final = 2
"""Photometric interpretation of TIFF; 0 is MinIsWhite, 1 MinIsBlack."""
MIN_IS_WHITE: Final = 0
UNASSOCIATED_ALPHA: Final = 2
"""Value of the tag ExtraSamples: the color is not multiplied by alpha."""
ASSOCIATED_ALPHA: Final = 1

_WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC, _SAMPLES, _PLANAR, _EXTRA = 256, 257, 258, 262, 277, 284, 338
_TIFF_TYPES: Final = {1: "B", 3: "H", 4: "I", 16: "Q"}
"""Struct codes of the unsigned types of TIFF values."""
_MAX_VALUES: Final = 16
_MAX_TAGS: Final = 4096

_JPEG_MARKER: Final = re.compile(b"\xff")
_JPEG_SIZES: Final = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
"""Markers of JPEG segments that state the size."""
_JPEG_BARE: Final = frozenset({0x01, *range(0xD0, 0xD9)})
"""Markers of JPEG without a segment."""


@dataclass(frozen=True)
class TiffTags:
    """How a TIFF file stores its first image.

    Attributes:
        photometric: Photometric interpretation.
        samples: Samples per pixel.
        is_planar: Whether each channel is stored by itself.
        extra: Values of the tag ExtraSamples.
        extra_at: Position of the first of them in the file, and the struct code of one.
    """

    photometric: int
    samples: int
    is_planar: bool
    extra: tuple[int, ...]
    extra_at: tuple[int, str] | None


@dataclass(frozen=True)
class ImageHeader:
    """The header of an image file.

    Attributes:
        format: The format.
        width: Width in pixels, before an orientation tag is applied.
        height: Height in pixels.
        bits: Bits per channel.
        tiff: Only of TIFF.
    """

    format: ImageFormat
    width: int
    height: int
    bits: int
    tiff: TiffTags | None = None


def read_format(data: bytes | memoryview) -> ImageFormat | None:
    """Return the format that the first 16 bytes of a file state."""
    data = bytes(data[:16])
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "TIFF"
    if data.startswith(b"BM"):
        return "BMP"
    return "WebP" if data[:4] == b"RIFF" and data[8:12] == b"WEBP" else None


def read_header(data: bytes | memoryview) -> ImageHeader | None:
    """Read the header of an image file; None if it is not one, or is cut or malformed."""
    readers = {"PNG": _read_png, "JPEG": _read_jpeg, "TIFF": _read_tiff, "BMP": _read_bmp, "WebP": _read_webp}
    image_format = read_format(data)
    if image_format is None:
        return None
    try:
        return readers[image_format](data)
    except (struct.error, IndexError, KeyError, OverflowError):
        return None


def _read_png(data: bytes | memoryview) -> ImageHeader | None:
    if data[12:16] != b"IHDR":
        return None
    width, height, bits = struct.unpack_from(">IIB", data, 16)
    # OpenCV allocates what a chunk states, up to 4 GiB, before it reads it; so all chunks must be within the file.
    position, name = 8, b""
    while name != b"IEND":
        length, name = struct.unpack_from(">I4s", data, position)
        if not name.isalpha() or length > len(data) - position - 12:
            return None
        position += 12 + length
    return ImageHeader("PNG", width, height, bits)


def _read_jpeg(data: bytes | memoryview) -> ImageHeader | None:
    position = 2
    while True:
        found = _JPEG_MARKER.search(data, position)
        if found is None:
            return None
        position = found.start()
        marker = data[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
        elif marker in _JPEG_SIZES:
            bits, height, width = struct.unpack_from(">BHH", data, position + 4)
            return ImageHeader("JPEG", width, height, bits)
        elif marker in _JPEG_BARE or marker == 0:
            position += 2
        else:
            position += 2 + max(struct.unpack_from(">H", data, position + 2)[0], 2)


def _read_bmp(data: bytes | memoryview) -> ImageHeader | None:
    (header_bytes,) = struct.unpack_from("<I", data, 14)
    width, height = struct.unpack_from("<HH" if header_bytes == 12 else "<ii", data, 18)
    return ImageHeader("BMP", abs(width), abs(height), 8)


def _read_webp(data: bytes | memoryview) -> ImageHeader | None:
    kind = data[12:16]
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return ImageHeader("WebP", width & 0x3FFF, height & 0x3FFF, 8)
    if kind == b"VP8L":
        (packed,) = struct.unpack_from("<I", data, 21)
        return ImageHeader("WebP", (packed & 0x3FFF) + 1, (packed >> 14 & 0x3FFF) + 1, 8)
    if kind == b"VP8X":
        width, height = (int.from_bytes(data[start : start + 3], "little") + 1 for start in (24, 27))
        return ImageHeader("WebP", width, height, 8)
    return None


@dataclass(frozen=True)
class _Value:
    """Values of a TIFF tag, and where the first one is."""

    values: tuple[int, ...]
    at: int
    code: str


def _read_tiff(data: bytes | memoryview) -> ImageHeader | None:
    order = "<" if data[:2] == b"II" else ">"
    is_big = 43 in (data[2], data[3])
    (position,) = struct.unpack_from(f"{order}{'Q' if is_big else 'I'}", data, 8 if is_big else 4)
    tags = _read_tags(data, order, position, is_big=is_big)

    def first(tag: int, default: int) -> int:
        return tags[tag].values[0] if tag in tags else default

    extra = tags.get(_EXTRA)
    stored = TiffTags(
        photometric=first(_PHOTOMETRIC, 1),
        samples=first(_SAMPLES, 1),
        is_planar=first(_PLANAR, 1) == 2,
        extra=() if extra is None else extra.values,
        extra_at=None if extra is None else (extra.at, f"{order}{extra.code}"),
    )
    bits = max(tags[_BITS].values) if _BITS in tags else 1
    return ImageHeader("TIFF", tags[_WIDTH].values[0], tags[_HEIGHT].values[0], bits, stored)


def _read_tags(data: bytes | memoryview, order: str, position: int, *, is_big: bool) -> Mapping[int, _Value]:
    """Read the integer tags of the first directory, the first values of each."""
    (count,) = struct.unpack_from(f"{order}{'Q' if is_big else 'H'}", data, position)
    position += 8 if is_big else 2
    entry, inline = ("HHQ", 8) if is_big else ("HHI", 4)
    size = struct.calcsize(f"{order}{entry}")
    tags: dict[int, _Value] = {}
    for _ in range(min(count, _MAX_TAGS)):
        tag, kind, length = struct.unpack_from(f"{order}{entry}", data, position)
        code = _TIFF_TYPES.get(kind)
        if code is not None and length:
            at = position + size
            if struct.calcsize(f"{order}{code}") * length > inline:
                (at,) = struct.unpack_from(f"{order}{'Q' if is_big else 'I'}", data, at)
            values = struct.unpack_from(f"{order}{min(length, _MAX_VALUES)}{code}", data, at)
            tags.setdefault(tag, _Value(values, at, code))
        position += size + inline
    return tags
