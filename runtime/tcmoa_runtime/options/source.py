"""Choices of a source of `tcmoa stream`."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Annotated, Final, Self

from tcmoa_runtime.errors import InputError
from tcmoa_runtime.images import DEFAULT_PERCENTILES, check_percentiles
from tcmoa_runtime.options.option import Option, check_seconds
from tcmoa_runtime.typing import ChannelOrder, Percentiles

DEFAULT_RATE: Final = Fraction(25)
"""Frames per second of sources without timestamps."""
STRETCH_SECONDS: Final = 1.0
"""Time constant with which the black and white of 16-bit frames follow the scene."""
MAX_RATE: Final = 10_000
"""Highest frame rate that is accepted, in frames per second."""
SOURCES_GROUP: Final = "Sources"

_RAW_FORMAT: Final = re.compile(r"(\d+)x(\d+):([a-z0-9]+)")


@dataclass(frozen=True, slots=True)
class RawFormat:
    """Format of raw video: size in pixels, and FFmpeg's name of the pixel format, e.g. `gray16le` or `rgb24`."""

    width: int
    height: int
    pixels: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse WIDTHxHEIGHT:PIXELS, e.g. `640x480:gray16le`.

        Raises:
            InputError: The text has another form, or a side is 0.
        """
        match = _RAW_FORMAT.fullmatch(text)
        if match is None or not (int(match[1]) and int(match[2])):
            raise InputError(f"{text!r}; expected WIDTHxHEIGHT:PIXELS, e.g. 640x480:gray16le", subject="raw")
        return cls(int(match[1]), int(match[2]), match[3])

    def __str__(self) -> str:
        return f"{self.width}x{self.height}:{self.pixels}"


@dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """How a source is opened and read."""

    live: Annotated[
        bool | None,
        Option(
            "Whether the newest frames win, or every frame is fused. By default, cameras, network streams without an "
            "end and stdin are live, all other sources are not.",
            group=SOURCES_GROUP,
        ),
    ] = None
    realtime: Annotated[
        bool, Option("Play files at their own speed, as if they came from cameras.", group=SOURCES_GROUP)
    ] = False
    rate: Annotated[
        Fraction | None,
        Option(
            "Frames per second of image sequences and raw video (25 by default), and requested from cameras.",
            group=SOURCES_GROUP,
        ),
    ] = None
    reconnect: Annotated[
        float,
        Option(
            "Seconds for which a lost camera or network stream is reopened before the stream goes on without it; "
            "0 never reopens, inf never gives up.",
            group=SOURCES_GROUP,
            metavar="SECONDS",
        ),
    ] = 30.0
    raw: RawFormat | None = None
    """Format of raw video on stdin."""
    ffmpeg: Mapping[str, str] = field(default_factory=dict)
    """Options of FFmpeg, e.g. `{"rtsp_transport": "tcp"}`; `format` names the input format."""
    channel_order: ChannelOrder = "rgb"
    """Channel order of the frames; a stream uses the order of its bundle."""
    stretch: Percentiles = DEFAULT_PERCENTILES
    """Percentiles of 10- to 16-bit frames that become black and white."""
    stretch_seconds: float = STRETCH_SECONDS
    """Time constant in seconds with which the stretch follows the scene; 0 stretches each frame by itself."""
    timeout: float = 5.0
    """Seconds that opening a network source, or reading from it, may take."""

    def __post_init__(self) -> None:
        """Check every field by itself.

        Raises:
            InputError: A field is out of range; the subject is its name.
        """
        if self.rate is not None and not 0 < self.rate <= MAX_RATE:
            raise InputError(f"{self.rate}; expected more than 0 frames per second", subject="rate")
        check_percentiles(self.stretch)
        if self.reconnect != math.inf:
            check_seconds("reconnect", self.reconnect)
        check_seconds("stretch_seconds", self.stretch_seconds)
        check_seconds("timeout", self.timeout, minimum=0.1)
