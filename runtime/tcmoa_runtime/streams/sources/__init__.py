"""Where frames come from: files, image sequences, cameras, network streams, stdin. One kind is one file."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Final, Self

from tcmoa_runtime.errors import InputError
from tcmoa_runtime.images import DEFAULT_PERCENTILES
from tcmoa_runtime.streams.interfaces import Source, SourceError, seconds, without_password
from tcmoa_runtime.streams.stretch import STRETCH_SECONDS
from tcmoa_runtime.typing import ChannelOrder

NETWORK: Final = ("rtsp", "rtsps", "http", "https", "udp", "rtp", "srt", "tcp", "rtmp")
"""Schemes of URLs that are read."""
DEFAULT_RATE: Final = Fraction(25)
"""Frames a second of what has no times of its own."""

_PATTERN: Final = re.compile(r"%0?\d*d")
_RAW: Final = re.compile(r"(\d+)x(\d+):([a-z0-9]+)")


@dataclass(frozen=True, slots=True)
class RawFormat:
    """What raw video on stdin is: size in pixels and FFmpeg's name of the pixel format, as `gray16le` or `rgb24`."""

    width: int
    height: int
    pixels: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """`640x480:gray16le`, or InputError."""
        match = _RAW.fullmatch(text)
        if match is None or not (int(match[1]) and int(match[2])):
            raise InputError(f"raw format is {text!r}: expected WIDTHxHEIGHT:PIXELS, as 640x480:gray16le")
        return cls(int(match[1]), int(match[2]), match[3])


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """How a source is opened.

    `rate`: frames a second of image sequences and raw video, and asked of cameras. `raw`: what comes on stdin. `live`:
    None takes cameras, network streams without an end and stdin as live, the rest as files. `realtime`: a file is
    played at its own pace, as if live. `percentiles` and `stretch_seconds`: see `SmoothStretch`. `ffmpeg` and `format`:
    options and input format for FFmpeg. `reconnect_seconds`: how long a live network source or camera may be away
    (0: not at all, infinity: for ever). `timeout_seconds`: of opening and of each read of a network source.
    """

    channel_order: ChannelOrder = "rgb"
    rate: Fraction | None = None
    raw: RawFormat | None = None
    live: bool | None = None
    realtime: bool = False
    percentiles: tuple[float, float] = DEFAULT_PERCENTILES
    stretch_seconds: float = STRETCH_SECONDS
    ffmpeg: Mapping[str, str] = field(default_factory=dict)
    format: str | None = None
    reconnect_seconds: float = 30.0
    timeout_seconds: float = 5.0

    def __post_init__(self) -> None:
        if self.reconnect_seconds != math.inf:
            seconds(self.reconnect_seconds, "reconnect")
        seconds(self.timeout_seconds, "timeout", least=0.1)
        if self.rate is not None and self.rate <= 0:
            raise InputError(f"rate is {self.rate}: expected frames a second, above 0")


def open_source(text: str, options: SourceOptions | None = None) -> Source:
    """Open a video file, folder or pattern of images, camera (/dev/videoN), URL, or - for raw video on stdin.

    Raises SourceError when it cannot be opened or holds no frame, InputError on options that do not fit it,
    MissingError where it needs a package that is not installed.
    """
    options = options or SourceOptions()
    scheme = text.partition("://")[0] if "://" in text else ""
    if text == "-":
        from tcmoa_runtime.streams.sources.raw import RawVideo

        return RawVideo(options)
    if options.raw is not None:
        raise InputError(f"{without_password(text)}: a raw format was given, which only - (stdin) takes")
    if text.startswith("/dev/video"):
        return _camera(text, options)
    if scheme and scheme != "file":
        return _network(text, scheme, options)
    path = Path(text.removeprefix("file://"))
    source = _file(path, options)
    if not (options.realtime or options.live):
        return source
    from tcmoa_runtime.streams.sources.paced import Paced

    return Paced(source)


def _file(path: Path, options: SourceOptions) -> Source:
    if path.is_dir() or _PATTERN.search(path.name):
        from tcmoa_runtime.streams.sources.images import ImageSequence

        return ImageSequence(path, options)
    if not path.exists():
        raise SourceError(f"{path}: no such file or folder")
    from tcmoa_runtime.streams.sources.video import Video

    return Video(str(path), options, live=False)


def _camera(text: str, options: SourceOptions) -> Source:
    from tcmoa_runtime.streams.sources.camera import Camera
    from tcmoa_runtime.streams.sources.reconnecting import Reconnecting

    def connect() -> Source:
        return Camera(text, options)

    return connect() if options.reconnect_seconds == 0 else Reconnecting(connect, options.reconnect_seconds)


def _network(text: str, scheme: str, options: SourceOptions) -> Source:
    from tcmoa_runtime.streams.sources.reconnecting import Reconnecting
    from tcmoa_runtime.streams.sources.video import Video

    if scheme not in NETWORK:
        raise SourceError(
            f"{without_password(text)}: '{scheme}' URLs are not read; expected one of {', '.join(NETWORK)}"
        )

    def connect() -> Source:
        return Video(text, options, live=options.live)

    first = connect()
    if not first.live:
        return _paced(first) if options.realtime else first
    return (
        first if options.reconnect_seconds == 0 else Reconnecting(connect, options.reconnect_seconds, first)
    )


def _paced(source: Source) -> Source:
    from tcmoa_runtime.streams.sources.paced import Paced

    return Paced(source)
