"""Formats of image files that the service writes, by name, media type and Accept header."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

from tcmoa_runtime.errors import InputError
from tcmoa_runtime.image_header import ImageFormat
from tcmoa_runtime.web.refusal import RefusedError

MEDIA_TYPES: Final[Mapping[ImageFormat, str]] = {
    "PNG": "image/png",
    "JPEG": "image/jpeg",
    "WebP": "image/webp",
    "TIFF": "image/tiff",
    "BMP": "image/bmp",
}
FORMAT_NAMES: Final[Mapping[str, ImageFormat]] = {
    "png": "PNG",
    "jpeg": "JPEG",
    "jpg": "JPEG",
    "webp": "WebP",
    "tiff": "TIFF",
    "tif": "TIFF",
    "bmp": "BMP",
}


def choose_format(name: str, accept: str) -> ImageFormat:
    """Return the format of a result: the named one, else the first that the Accept header allows.

    Raises:
        InputError: There is no such format.
        RefusedError: 406: the header allows none.
    """
    if name:
        image_format = FORMAT_NAMES.get(name.lower())
        if image_format is None:
            raise InputError(f"{name!r}; expected one of {', '.join(FORMAT_NAMES)}", subject="format")
        return image_format
    ranges = [_parse_range(part) for part in accept.split(",")]
    named = {media_type for media_type, _ in ranges}
    best: tuple[float, ImageFormat] | None = None
    for media_type, weight in ranges:
        for image_format, known in MEDIA_TYPES.items():
            is_match = media_type == known or (known not in named and media_type in ("image/*", "*/*"))
            if is_match and weight > 0 and (best is None or weight > best[0]):
                best = weight, image_format
    if best is None:
        raise RefusedError(
            HTTPStatus.NOT_ACCEPTABLE,
            f"Accept: {accept!r}; expected one of {', '.join(MEDIA_TYPES.values())}.",
        )
    return best[1]


def _parse_range(text: str) -> tuple[str, float]:
    """Return the media type of a range of the Accept header, and its quality: `q=0.5` among its parameters, else 1."""
    media_type, *parameters = text.lower().split(";")
    for parameter in parameters:
        name, _, value = parameter.strip().partition("=")
        if name == "q":
            try:
                return media_type.strip(), float(value)
            except ValueError:
                return media_type.strip(), 0.0
    return media_type.strip(), 1.0
