"""Where fused frames go: video files, image sequences, raw video, network streams, a window. One kind is one file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tcmoa_runtime.errors import InputError
from tcmoa_runtime.images import IMAGE_SUFFIXES
from tcmoa_runtime.streams.interfaces import Sink, SinkError, without_password
from tcmoa_runtime.streams.view import Viewed, check_view

PUSHED: Final = ("rtsp", "rtp", "udp", "srt", "tcp", "rtmp")
"""Schemes of URLs that are pushed to."""
CONTAINERS: Final = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska"}
"""Suffixes of video files and FFmpeg's names of their containers."""


@dataclass(frozen=True, slots=True)
class SinkOptions:
    """How a sink is opened.

    `codec`: h264 (None), hevc, ffv1, mjpeg, or another encoder of FFmpeg. `quality`: CRF of h264 and hevc (20, 23), the
    scale of mjpeg (3; 2 is best), JPEG quality of images. `encoder_options` for FFmpeg's encoder. `view`: see
    `streams.view`. `copy_from`: the video file x, whose audio and metadata are copied. `image_format` of images in a
    folder.
    """

    codec: str | None = None
    quality: int | None = None
    encoder_options: Mapping[str, str] = field(default_factory=dict)
    view: str = "fused"
    copy_from: Path | None = None
    image_format: str = "png"


def open_sink(text: str, options: SinkOptions | None = None) -> Sink:
    """A video file (.mp4, .mov, .mkv), folder/ or pattern of images, URL to push to, `window`, or - for stdout.

    Everything that can be known before the first frame is checked now. Raises InputError and SinkError in one line,
    MissingError where it needs a package that is not installed.
    """
    options = options or SinkOptions()
    check_view(options.view)
    sink = _plain(text, options)
    return sink if options.view == "fused" else Viewed(sink, options.view)


def _plain(text: str, options: SinkOptions) -> Sink:
    scheme = text.partition("://")[0] if "://" in text else ""
    path = Path(text)
    is_video = path.suffix.lower() in CONTAINERS
    if options.copy_from is not None and not (is_video and not scheme):
        raise InputError(f"{without_password(text)}: audio and metadata are copied into video files only")
    if scheme:
        if scheme not in PUSHED:
            raise SinkError(
                f"{without_password(text)}: '{scheme}' URLs are not pushed to; expected one of {', '.join(PUSHED)}"
            )
        from tcmoa_runtime.streams.sinks.push import Push

        return Push(text, options)
    if text == "-":
        from tcmoa_runtime.streams.sinks.raw import RawOut

        return RawOut()
    if text == "window":
        from tcmoa_runtime.streams.sinks.window import Window

        return Window()
    if is_video:
        from tcmoa_runtime.streams.sinks.video import VideoFile

        return VideoFile(path, options)
    if text.endswith("/") or path.is_dir() or re.search(r"%0?\d*d", path.name):
        from tcmoa_runtime.streams.sinks.images import ImageFiles

        return ImageFiles(text, options)
    known = ", ".join([*CONTAINERS, "FOLDER/", "FOLDER/%06d.png", "a URL", "window", "-"])
    hint = "; one image of many frames needs a pattern" if path.suffix.lower() in IMAGE_SUFFIXES else ""
    raise SinkError(f"{text}: expected one of {known}{hint}")
