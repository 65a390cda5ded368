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
    best: tuple[float, ImageFormat] | None = None
    for part in accept.split(","):
        media_type, _, rest = part.strip().lower().partition(";")
        weight = _weight_of(rest)
        for image_format, known in MEDIA_TYPES.items():
            is_match = media_type.strip() in (known, "image/*", "*/*")
            if is_match and weight > 0 and (best is None or weight > best[0]):
                best = weight, image_format
    if best is None:
        raise RefusedError(
            HTTPStatus.NOT_ACCEPTABLE,
            f"Accept: {accept!r}; expected one of {', '.join(MEDIA_TYPES.values())}.",
        )
    return best[1]


def _weight_of(parameters: str) -> float:
    """Return the quality of a media range, `q=0.5` among its parameters."""
    for parameter in parameters.split(";"):
        name, _, value = parameter.strip().partition("=")
        if name == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0
