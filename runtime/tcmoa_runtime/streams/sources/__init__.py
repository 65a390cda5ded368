"""Sources of frames: files, image sequences, cameras, network streams, stdin; one file for each kind."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Final

from tcmoa_runtime.errors import InputError
from tcmoa_runtime.options.source import RawFormat, SourceOptions
from tcmoa_runtime.options.stream import StreamOptions
from tcmoa_runtime.streams.interfaces import Source, SourceError, without_password
from tcmoa_runtime.typing import ChannelOrder, SourceName

__all__ = ["NETWORK_SCHEMES", "RawFormat", "SourceOptions", "open_source", "open_sources"]

NETWORK_SCHEMES: Final = ("rtsp", "rtsps", "http", "https", "udp", "rtp", "srt", "tcp", "rtmp")
"""Schemes of URLs that can be read."""

_NUMBER_PATTERN: Final = re.compile(r"%0?\d*d")


def open_source(location: str, options: SourceOptions | None = None) -> Source:
    """Open a source and decode its first frame.

    Args:
        location: A video file, a folder or numbered pattern of images (FOLDER/%04d.png), a camera (/dev/videoN), a
            URL, or `-` for raw video on stdin.
        options: How it is opened.

    Raises:
        SourceError: The source cannot be opened or has no frame.
        InputError: The options do not fit the source.
        MissingError: A package that the source needs is not installed.
    """
    options = options or SourceOptions()
    scheme = location.partition("://")[0] if "://" in location else ""
    if location == "-":
        from tcmoa_runtime.streams.sources.raw import RawVideo

        return RawVideo(options)
    if options.raw is not None:
        raise InputError("a raw format, which only stdin (-) takes", subject=without_password(location))
    if location.startswith("/dev/video"):
        return _open_camera(location, options)
    if scheme and scheme != "file":
        return _open_network(location, scheme, options)
    source = _open_file(Path(location.removeprefix("file://")), options)
    return _paced(source) if options.realtime or options.live else source


def open_sources(
    x: Source | str | Path, y: Source | str | Path, options: StreamOptions, channel_order: ChannelOrder
) -> dict[SourceName, Source]:
    """Open both sources of a stream, if they are given as text. A file beside a live source is played in real time.

    Args:
        x: First source.
        y: Second source.
        options: How each source is opened.
        channel_order: Channel order of the frames.

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
                source = open_source(str(source), replace(options.source(side), channel_order=channel_order))
            opened[side] = source
        if len({source.live for source in opened.values()}) == 2:
            opened = {side: source if source.live else _paced(source) for side, source in opened.items()}
    except BaseException:
        for source in (*opened.values(), *given.values()):
            if not isinstance(source, str | Path):
                source.close()
        raise
    return opened


def _open_file(path: Path, options: SourceOptions) -> Source:
    if path.is_dir() or _NUMBER_PATTERN.search(path.name):
        from tcmoa_runtime.streams.sources.images import ImageSequence

        return ImageSequence(path, options)
    if not path.exists():
        raise SourceError("no such file or folder", subject=path)
    from tcmoa_runtime.streams.sources.video import Video

    return Video(str(path), options, live=False)


def _open_camera(device: str, options: SourceOptions) -> Source:
    from tcmoa_runtime.streams.sources.camera import Camera
    from tcmoa_runtime.streams.sources.reconnecting import Reconnecting

    def connect() -> Source:
        return Camera(device, options)

    return connect() if options.reconnect == 0 else Reconnecting(connect, options.reconnect)


def _open_network(url: str, scheme: str, options: SourceOptions) -> Source:
    from tcmoa_runtime.streams.sources.reconnecting import Reconnecting
    from tcmoa_runtime.streams.sources.video import Video

    if scheme not in NETWORK_SCHEMES:
        raise SourceError(
            f"scheme {scheme!r}; expected one of {', '.join(NETWORK_SCHEMES)}", subject=without_password(url)
        )

    def connect() -> Source:
        return Video(url, options, live=options.live)

    first = connect()
    if not first.live:
        return _paced(first) if options.realtime else first
    return first if options.reconnect == 0 else Reconnecting(connect, options.reconnect, first)


def _paced(source: Source) -> Source:
    from tcmoa_runtime.streams.sources.paced import Paced

    return Paced(source)
