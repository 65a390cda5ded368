"""PyAV, which brings FFmpeg: imported where video is, and what its errors say."""

from __future__ import annotations

from typing import Any

from tcmoa_runtime.errors import MissingError
from tcmoa_runtime.streams.interfaces import without_password


def import_av() -> Any:
    """PyAV, or MissingError."""
    try:
        import av
    except ImportError as error:
        raise MissingError(
            f"video needs the package av ({error}); run `pip install 'tcmoa[stream]'`, or use folders of images"
        ) from error
    return av


def reason(error: BaseException, url: str = "") -> str:
    """What FFmpeg says, on one line; `url` in it, which may hold a password, without that."""
    text = str(getattr(error, "strerror", None) or error or type(error).__name__).splitlines()[0]
    return text.replace(url, without_password(url)) if url else text
