"""Sources of frames: files, image sequences, cameras, network streams, stdin; one file for each kind."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Final

from tcmoa_runtime.errors import InputError
from tcmoa_runtime.images import IMAGE_SUFFIXES
from tcmoa_runtime.location import (
    file_url,
    has_number,
    normalize_url,
    path_of,
    printable,
    redact,
    scheme_of,
)
from tcmoa_runtime.log import get_logger
from tcmoa_runtime.options.source import RawFormat, SourceOptions
from tcmoa_runtime.options.stream import StreamOptions
from tcmoa_runtime.streams.interfaces import Source, SourceError
from tcmoa_runtime.streams.opening import reported_opening
from tcmoa_runtime.streams.sources.paced import Paced
from tcmoa_runtime.typing import ChannelOrder, OnMessage, SourceName

__all__ = ["NETWORK_SCHEMES", "RawFormat", "SourceOptions", "open_source", "open_sources", "pair_by_name"]

NETWORK_SCHEMES: Final = ("rtsp", "rtsps", "http", "https", "udp", "rtp", "srt", "tcp", "rtmp")
"""Schemes of URLs that can be read."""

SIMULATED: Final = "simulated"
"""Scheme of simulated cameras: `simulated://x` and `simulated://y`."""

_log = get_logger("streams")
_CAMERA: Final = re.compile(r"/dev/video\d+")


def open_source(
    location: str | Path, options: SourceOptions | None = None, on_message: OnMessage | None = None
) -> Source:
    """Open a source and decode its first frame.

    Args:
        location: A video file, a folder or numbered pattern of images (FOLDER/%04d.png), a camera (/dev/videoN), a
            URL, a simulated camera (`simulated://x`), or `-` for raw video on stdin. What exists as a file or folder is
            opened as that, and a `Path` always.
        options: How it is opened.
        on_message: Takes messages while a camera or network stream is opened, also on another thread.

    Raises:
        SourceError: The source cannot be opened or has no frame.
        InputError: The options do not fit the source.
        MissingError: A package that the source needs is not installed.
    """
    options = options or SourceOptions()
    text = str(location)
    scheme = "" if isinstance(location, Path) else scheme_of(text)
    if location == "-":
        from tcmoa_runtime.streams.sources.raw import RawVideo

        return RawVideo(options)
    if options.raw is not None:
        raise InputError("a raw format, which only stdin (-) takes", subject=redact(text))
    if scheme == SIMULATED:
        from tcmoa_runtime.streams.sources.simulated import SimulatedCamera

        return SimulatedCamera(text, options)
    if _CAMERA.fullmatch(text):
        return _open_camera(text, options, on_message)
    if scheme and scheme != "file":
        return _open_network(normalize_url(text), scheme, options, on_message)
    source = _open_file(path_of(text) if scheme else Path(text), options)
    return _paced(source) if options.realtime or options.live else source


def open_sources(
    x: Source | str | Path,
    y: Source | str | Path,
    options: StreamOptions,
    channel_order: ChannelOrder,
    on_message: OnMessage | None = None,
) -> dict[SourceName, Source]:
    """Open both sources of a stream, if they are given as text. A file beside a live source is played in real time.

    Args:
        x: First source.
        y: Second source.
        options: How each source is opened.
        channel_order: Channel order of the frames.
        on_message: Takes messages while sources are opened, also on another thread.

    Raises:
        SourceError: A source cannot be opened. Both are closed then.
        InputError: The options do not fit a source, or both are stdin.
        MissingError: A package that a source needs is not installed.
    """
    given: dict[SourceName, Source | str | Path] = {"x": x, "y": y}
    opened: dict[SourceName, Source] = {}
    if x == y == "-":
        raise InputError("both sources are stdin (-); expected one at most")
    try:
        for side, source in given.items():
            if isinstance(source, str | Path):
                source = open_source(
                    source, replace(options.source(side), channel_order=channel_order), on_message
                )
            opened[side] = source
        if len({source.live for source in opened.values()}) == 2:
            opened = {side: source if source.live else _paced(source) for side, source in opened.items()}
    except BaseException:
        for source in (*opened.values(), *given.values()):
            if not isinstance(source, str | Path):
                source.close()
        raise
    return opened


def _has_duration(name: str) -> SourceError:
    return SourceError(
        "has a duration: read as a file, every frame of it",
        subject=name,
        remedy="Set {live} to treat it as live.",
        settings={"live": True},
    )


def pair_by_name(x: Source, y: Source) -> None:
    """Give the images of two folders or patterns times by their names; leave all other sources as they are.

    Raises:
        SourceError: It is not clear which images belong together.
    """
    from tcmoa_runtime.streams.sources.images import ImageSequence
    from tcmoa_runtime.streams.sources.matching import match_images

    x, y = (source.file if isinstance(source, Paced) else source for source in (x, y))
    if not isinstance(x, ImageSequence) or not isinstance(y, ImageSequence) or x.rate != y.rate:
        return
    if len(x.listed.paths) == len(y.listed.paths) == 1:  # two files that were named one by one
        return
    matching = match_images(x.listed, y.listed)
    if matching is None:
        _log.warning(
            "%s and %s have no common names or numbers; paired in their order",
            x.name,
            y.name,
            extra={"event": "paired-in-order"},
        )
        return
    if matching.message is not None:
        _log.warning(
            "%s and %s: %s", x.name, y.name, matching.message, extra={"event": "images-without-partner"}
        )
    x.set_times(matching.x)
    y.set_times(matching.y)


def _open_file(path: Path, options: SourceOptions) -> Source:
    from tcmoa_runtime.streams.sources.images import ImageSequence

    is_file = os.path.lexists(path) and not path.is_dir()
    is_image = is_file and path.suffix.lower() in IMAGE_SUFFIXES
    if is_image or path.is_dir() or (not is_file and has_number(path.name)):
        return ImageSequence(path, options)
    if not is_file:
        raise SourceError("no such file or folder", subject=printable(str(path)))
    from tcmoa_runtime.streams.sources.video import Video

    return Video(file_url(path), options, live=False, name=str(path))


def _open_camera(device: str, options: SourceOptions, on_message: OnMessage | None) -> Source:
    from tcmoa_runtime.streams.sources.camera import Camera
    from tcmoa_runtime.streams.sources.reconnecting import Reconnecting

    def connect() -> Source:
        return Camera(device, options)

    with reported_opening(device, on_message):
        first = connect()
    return first if options.reconnect == 0 else Reconnecting(connect, options.reconnect, first)


def _open_network(url: str, scheme: str, options: SourceOptions, on_message: OnMessage | None) -> Source:
    from tcmoa_runtime.streams.sources.reconnecting import Reconnecting
    from tcmoa_runtime.streams.sources.video import Video

    if scheme not in NETWORK_SCHEMES:
        raise SourceError(
            f"scheme {scheme!r}; expected one of {', '.join((*NETWORK_SCHEMES, SIMULATED))}",
            subject=redact(url),
        )

    def connect() -> Source:
        return Video(url, options, live=options.live)

    with reported_opening(redact(url), on_message) as on_phase:
        first = Video(url, options, live=options.live, on_phase=on_phase)
    if not first.live:
        if options.live is None:
            _log.warning("%s", _has_duration(first.name), extra={"event": "not-live", "location": first.name})
        return _paced(first) if options.realtime else first
    return first if options.reconnect == 0 else Reconnecting(connect, options.reconnect, first)


def _paced(source: Source) -> Source:
    return Paced(source)
