"""PyAV, the binding of FFmpeg: imported where video is read or written."""

from __future__ import annotations

from typing import Any

from tcmoa_runtime.errors import MissingError
from tcmoa_runtime.install import install_hint
from tcmoa_runtime.location import redact, redact_text


def import_av() -> Any:
    """Import PyAV.

    Raises:
        MissingError: PyAV is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise MissingError(
            f"the package av is needed for video ({error})",
            remedy=f"{install_hint('stream')}, or use folders of images.",
        ) from error
    return av


def describe_error(error: BaseException, url: str = "") -> str:
    """Return FFmpeg's description of an error on one line, with the secrets of `url` removed."""
    if url and isinstance(error, import_av().error.ProtocolNotFoundError):
        return f"FFmpeg has no protocol {url.partition('://')[0]} here"
    text = str(getattr(error, "strerror", None) or error or type(error).__name__).splitlines()[0]
    return redact_text(text.replace(url, redact(url)) if url else text)
