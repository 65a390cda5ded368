"""Sinks, the outputs of a stream: video files, image sequences, raw video, network streams and a window."""

from __future__ import annotations

from tcmoa_runtime.errors import InputError
from tcmoa_runtime.images import IMAGE_SUFFIXES
from tcmoa_runtime.location import has_number, path_of, printable, redact, scheme_of
from tcmoa_runtime.options.sink import SinkOptions
from tcmoa_runtime.streams.interfaces import Sink, SinkError
from tcmoa_runtime.streams.sinks.images import ImageSequenceSink
from tcmoa_runtime.streams.sinks.network import CONTAINER_OF_SCHEME, NetworkSink
from tcmoa_runtime.streams.sinks.raw import RawVideoSink
from tcmoa_runtime.streams.sinks.video import CONTAINER_OF_SUFFIX, VideoFileSink
from tcmoa_runtime.streams.sinks.window import WindowSink
from tcmoa_runtime.streams.view import ViewSink

__all__ = ["SinkOptions", "open_sink"]


def open_sink(target: str, options: SinkOptions | None = None) -> Sink:
    """Create a sink. Everything that can be checked before the first frame is checked here.

    Args:
        target: A video file (.mp4, .mov, .mkv), FOLDER/ or a pattern of image files (FOLDER/%06d.png), a URL to push
            to (rtsp, rtp, udp, srt, tcp, rtmp), `window`, or `-` for raw video on stdout. A video file is recognized by
            its suffix, whatever else its name holds.
        options: How it is encoded and what it shows.

    Raises:
        InputError: The options do not fit the target.
        SinkError: The target is unknown or cannot be written.
        MissingError: A package that the target needs is not installed.
    """
    options = options or SinkOptions()
    sink = _sink_of(target, options)
    return sink if options.view == "fused" else ViewSink(sink, options.view)


def _sink_of(target: str, options: SinkOptions) -> Sink:
    scheme = scheme_of(target)
    path = path_of(target)
    is_video = (
        scheme in ("", "file") and not target.endswith("/") and path.suffix.lower() in CONTAINER_OF_SUFFIX
    )
    if options.copy_from is not None and not is_video:
        raise InputError(
            "audio and metadata can be copied into video files only; expected "
            + ", ".join(f"FILE{suffix}" for suffix in CONTAINER_OF_SUFFIX),
            subject=redact(target),
        )
    if scheme not in ("", "file"):
        if scheme not in CONTAINER_OF_SCHEME:
            raise SinkError(
                f"URL scheme {scheme!r}; expected one of {', '.join(CONTAINER_OF_SCHEME)}",
                subject=redact(target),
            )
        return NetworkSink(target, options)
    if target == "-":
        return RawVideoSink()
    if target == "window":
        return WindowSink()
    if is_video:
        return VideoFileSink(path, options)
    is_folder = target.endswith("/") or path.is_dir()
    if is_folder or has_number(path.name):
        return ImageSequenceSink(path, options, is_folder=is_folder, name=printable(target))
    known = [*CONTAINER_OF_SUFFIX, "FOLDER/", "FOLDER/%06d.png", "a URL", "window", "-"]
    is_image = path.suffix.lower() in IMAGE_SUFFIXES
    raise SinkError(
        f"unknown kind of output; expected one of {', '.join(known)}",
        subject=printable(target),
        remedy=f"Number the images by a pattern, e.g. {path.stem}-%06d{path.suffix}." if is_image else None,
    )
