"""What flows through a stream, and the two ends it flows between: frames, sources and sinks."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from tcmoa_runtime.errors import InputError
from tcmoa_runtime.typing import Frame

Side = Literal["x", "y"]
"""Which of the two sources."""

Status = Literal["fused", "held-x", "held-y", "passed-x", "passed-y"]
"""How a frame came to be: both sources in step; an old frame of one fused again; one alone, not fused."""


class SourceError(InputError):
    """A source cannot be opened or read, now or any more; the message names it and says why."""


class SinkError(InputError):
    """A sink cannot be opened, written or finished; the message names it and says why."""


@dataclass(frozen=True, slots=True)
class SourceFrame:
    """One decoded frame of a source.

    `image` is uint8 [H, W, 3] in the channel order that the source was opened with, or uint8 [H, W] of a grey one;
    what arrived with 10 to 16 bits has been stretched. It belongs to the frame: nobody writes to it any more.
    `pts` counts `time_base` seconds on the source's own clock, as its container or camera says. `arrived` is
    `time.monotonic()` when it was there to be decoded. `index` counts the frames of the source from 0, over
    reconnects.
    """

    image: Frame
    pts: int
    time_base: Fraction
    arrived: float
    index: int

    @property
    def time(self) -> float:
        """`pts` in seconds, on the source's own clock."""
        return float(self.pts * self.time_base)


@dataclass(frozen=True, slots=True)
class FusedFrame:
    """One frame of the output.

    `image` is uint8 [H, W, 3] in the bundle's channel order. `pts` counts `time_base` seconds on the clock of the
    leading source (x, unless told otherwise) and rises from frame to frame. `index` counts outputs from 0. `x` and `y`
    are what it was made from (None where a source had none yet, or none that was young enough). `age_x` and `age_y` are
    seconds: of a live source from capture to the end of fusing, of a file its distance in time from the leading
    frame. `latency` is seconds from the arrival of the newer of the two to the end of fusing, of files the time that
    fusing took. `prompt` is float32
    [K, 2, gh, gw] after Eq. 8 where the stream asked for it and the frame was fused. `reused`: picture and prompt are
    those of the frame last fused, whose sources these ones equal within the tolerance that the stream was given.
    """

    image: Frame
    pts: int
    time_base: Fraction
    index: int
    status: Status
    x: SourceFrame | None
    y: SourceFrame | None
    age_x: float | None
    age_y: float | None
    latency: float
    prompt: NDArray[np.float32] | None = None
    reused: bool = False

    @property
    def time(self) -> float:
        """`pts` in seconds."""
        return float(self.pts * self.time_base)


@dataclass(frozen=True, slots=True)
class StreamFormat:
    """What a sink will get: size in pixels, channel order, clock, the rate where it is known, whether it is live."""

    height: int
    width: int
    channel_order: Literal["rgb", "bgr"]
    time_base: Fraction
    rate: Fraction | None
    live: bool


class Source(Protocol):
    """A sequence of frames in the order of time, opened already.

    `read` and `close` may be called from different threads; `close` makes a waiting `read` return None or raise soon.
    """

    @property
    def name(self) -> str:
        """As the user gave it, without passwords."""
        ...

    @property
    def live(self) -> bool:
        """Whether frames come when they come and grow old, as from a camera, or wait to be read, as in a file."""
        ...

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the frames, of the first one where they change."""
        ...

    @property
    def rate(self) -> Fraction | None:
        """Frames a second where it is known."""
        ...

    @property
    def time_base(self) -> Fraction:
        """Seconds that `pts` counts."""
        ...

    def read(self) -> SourceFrame | None:
        """The next frame, waiting for it; None at the end. Raises SourceError when it cannot go on."""
        ...

    def close(self) -> None:
        """Free what is held; may be called twice."""
        ...


@runtime_checkable
class Sink(Protocol):
    """Where fused frames go. `open` once, `write` in order, `close` once; all from one thread."""

    @property
    def name(self) -> str:
        """As the user gave it, without passwords."""
        ...

    @property
    def lossless(self) -> bool:
        """Whether every frame matters (files), or only the newest (windows, pages)."""
        ...

    def open(self, form: StreamFormat) -> None:
        """Get ready; raises SinkError."""
        ...

    def write(self, frame: FusedFrame) -> None:
        """Take a frame; raises SinkError, after which only `close` is called."""
        ...

    def close(self) -> None:
        """Finish what was written so that it can be read, also after an error; raises SinkError when it cannot."""
        ...


def without_password(url: str) -> str:
    """`url` with the password and user of `scheme://user:password@host` taken away."""
    scheme, mark, rest = url.partition("://")
    if not mark:
        return url
    authority, slash, path = rest.partition("/")
    return f"{scheme}://{authority.rpartition('@')[2]}{slash}{path}"


def seconds(value: Any, name: str, *, least: float = 0.0) -> float:
    """A finite number of seconds of at least `least`, or InputError naming `name`."""
    if (
        not isinstance(value, (int, float))
        or isinstance(value, bool)
        or not np.isfinite(value)
        or value < least
    ):
        raise InputError(f"{name} is {value!r}: expected seconds, {least:g} or more")
    return float(value)
